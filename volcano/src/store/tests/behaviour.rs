//! Single behaviours of the store.
