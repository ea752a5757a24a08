//! The whole join against doubles at its process boundaries.
