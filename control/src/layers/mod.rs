//! The layers, bottom up. Each has the same files: `desired` and `plan` are pure, `observe`, `apply`
//! and `gate` touch the world.
