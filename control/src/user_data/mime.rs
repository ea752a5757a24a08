//! MIME multipart, as cloud-init and nodeadm read it.

/// Separates the parts. Fixed, so that the same fleet gives the same bytes; no part holds it.
pub(super) const BOUNDARY: &str = "==rollcall-user-data==";

/// One part.
pub(super) struct Part {
    pub(super) media_type: &'static str,
    pub(super) body: String,
}

/// The whole message.
pub(super) fn multipart(parts: &[Part]) -> String {
    let mut text =
        format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\n\n");
    for part in parts {
        debug_assert!(!part.body.contains(BOUNDARY), "a part holds the boundary");
        text.push_str(&format!(
            "--{BOUNDARY}\nContent-Type: {}; charset=\"us-ascii\"\nMIME-Version: 1.0\n\n{}\n",
            part.media_type,
            part.body.trim_end_matches('\n'),
        ));
    }
    text.push_str(&format!("--{BOUNDARY}--\n"));
    text
}
