//! Copies of slices: histories, rewinds, placing, and reading the log for others.
