//! How a pool's nodes are launched: one trait, one template builder that knows what each path refuses.
