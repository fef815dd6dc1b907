//! What a simulation sees of the records that copies take. Without the feature `simulation` nobody looks.

#[cfg(feature = "simulation")]
mod window {
    use std::cell::RefCell;

    use crate::record::Record;

    thread_local! {
        static TAKEN: RefCell<Vec<(bool, Record)>> = const { RefCell::new(Vec::new()) };
    }

    /// The records that copies on this thread have taken since this was asked last, and whether they have made them themselves.
    pub fn taken() -> Vec<(bool, Record)> {
        TAKEN.take()
    }

    pub(crate) fn note(made_here: bool, record: &Record) {
        TAKEN.with_borrow_mut(|taken| taken.push((made_here, record.clone())));
    }
}

#[cfg(not(feature = "simulation"))]
mod window {
    pub(crate) const fn note(_made_here: bool, _: &crate::record::Record) {}
}

pub(crate) use window::note;
#[cfg(feature = "simulation")]
pub use window::taken;
