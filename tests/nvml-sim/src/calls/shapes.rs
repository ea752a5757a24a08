//! The shapes that most functions have, so that each of them is one line.

/// Functions that give one value of a device.
macro_rules! getters {
    ($($name:ident -> $out:ty = |$gpu:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut $out,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            let answer = $crate::session::on_device(stringify!($name), device, |$gpu, _| $answer);
            // SAFETY: the caller passes a pointer to the type that nvml.h demands.
            unsafe { $crate::calls::put(out, answer) }
        }
    )*};
}

/// Functions that give a text of a device, or of a part of one.
macro_rules! texts {
    ($($name:ident = |$target:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut std::ffi::c_char,
            length: std::ffi::c_uint,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            let answer = $crate::session::on_target(stringify!($name), device, |target| {
                let garbage = target.gpu.fault.as_ref().is_some_and(|fault| fault.garbage);
                let $target = target;
                let text: Result<String, nvml_wrapper_sys::bindings::nvmlReturn_t> = $answer;
                Ok((garbage, text?))
            });
            match answer {
                // SAFETY: the caller passes a buffer of `length` bytes, as nvml.h demands.
                Ok((true, _)) => unsafe { $crate::calls::put_garbage(out, length) },
                // SAFETY: as above.
                Ok((false, text)) => unsafe { $crate::calls::put_text(out, length, Ok(text)) },
                Err(code) => code,
            }
        }
    )*};
}

/// Functions that give two values of a device.
macro_rules! pairs {
    ($($name:ident -> ($a:ty, $b:ty) = |$gpu:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            first: *mut $a,
            second: *mut $b,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            let answer = $crate::session::on_device(stringify!($name), device, |$gpu, _| $answer);
            // SAFETY: the caller passes pointers to the types that nvml.h demands.
            unsafe { $crate::calls::put_pair(first, second, answer) }
        }
    )*};
}

/// Functions that give one value for one choice.
macro_rules! choices {
    ($($name:ident($choice:ty) -> $out:ty = |$gpu:pat_param, $chosen:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            chosen: $choice,
            out: *mut $out,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            let answer = $crate::session::on_device(stringify!($name), device, |$gpu, _| {
                let $chosen = chosen;
                $answer
            });
            // SAFETY: the caller passes a pointer to the type that nvml.h demands.
            unsafe { $crate::calls::put(out, answer) }
        }
    )*};
}

/// Functions that fill a structure whose version their caller has set.
macro_rules! versioned {
    ($($name:ident -> $out:ty, $version:literal = |$gpu:pat_param, $word:pat_param| $answer:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name(
            device: nvml_wrapper_sys::bindings::nvmlDevice_t,
            out: *mut $out,
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            // SAFETY: null, or the caller passes a structure whose version it has set.
            let version = match unsafe { $crate::calls::version_at(out) } {
                Ok(version) => version,
                Err(code) => return code,
            };
            if version != $crate::calls::version_of::<$out>($version) {
                return $crate::session::VERSION_OF_STRUCT;
            }
            let answer = $crate::session::on_device(stringify!($name), device, |$gpu, _| {
                let $word = version;
                $answer
            });
            // SAFETY: the version says that the caller's structure is this one.
            unsafe { $crate::calls::put(out, answer) }
        }
    )*};
}

pub(super) use {choices, getters, pairs, texts, versioned};
