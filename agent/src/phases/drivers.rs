//! Does every GPU that was paid for work?
