//! A disk for tests that keeps what was not synced apart.
