//! What a slice promises to those who ask it, one behaviour a test.

mod answers;
mod locks;
mod misc;
mod opens;
mod random;
mod retries;
mod sessions;
mod world;
