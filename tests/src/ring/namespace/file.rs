//! The bytes of a file: all in one flare, or spread over stripes (`docs/STRIPES.md`).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::proto::OpId;
use magma_common::proto::operation::{Layout, LayoutReply};
use magma_common::stripes::StripeUnit;

use super::Mismatch;
use crate::ring::chronicle::Shed;

/// The bytes that one flare has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    bytes: Rc<Vec<u8>>,
    /// Names the changes that have led here.
    history: u64,
    /// Bytes that may be zeros instead.
    doubtful: Vec<Range<usize>>,
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Cheaper than all the bytes.
        (self.history, &self.doubtful).hash(state);
    }
}

impl Content {
    fn note(&mut self, change: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.history, change).hash(&mut hasher);
        self.history = hasher.finish();
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn write(&mut self, id: Option<OpId>, offset: usize, data: &[u8]) {
        self.note((id, offset));
        let bytes = Rc::make_mut(&mut self.bytes);
        let end = offset + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(data);
    }

    fn resize(&mut self, cause: impl Hash, size: usize) {
        self.note(cause);
        Rc::make_mut(&mut self.bytes).resize(size, 0);
    }

    /// Some bytes may be zeros instead.
    pub(super) fn doubt(&mut self, range: Range<usize>) {
        self.doubtful.push(range);
    }

    /// Whether these can be the bytes of a range.
    pub(super) fn check(&self, offset: usize, length: usize, shown: &[u8]) -> Result<(), Mismatch> {
        let start = offset.min(self.bytes.len());
        let expected = &self.bytes[start..(start + length).min(self.bytes.len())];
        if expected == shown {
            return Ok(());
        }
        if expected.len() != shown.len() {
            return Err(format!("{} bytes are read, which have to be {}", shown.len(), expected.len()));
        }
        let wrong = (0..shown.len()).find(|&at| {
            let is_doubtful = || self.doubtful.iter().any(|range| range.contains(&(start + at)));
            shown[at] != expected[at] && !(shown[at] == 0 && is_doubtful())
        });
        match wrong {
            None => Ok(()),
            Some(at) => Err(format!(
                "the byte {} is read as {:#04x}, which has to be {:#04x}",
                start + at,
                shown[at],
                expected[at]
            )),
        }
    }
}

/// A stripe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Stripe {
    /// Its flare. The answer to the write that makes it does not say so; the record does.
    handle: Option<Handle>,
    /// The cut number that it was told.
    cut: u64,
    pub(super) content: Content,
}

/// What the head of a striped file knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Striping {
    unit: StripeUnit,
    size: u64,
    cut: u64,
    stripes: BTreeMap<u64, Stripe>,
    /// From this number on they are dying.
    dying: Option<u64>,
    /// What is to be cleared at the ends of stripes.
    trims: BTreeMap<u64, u64>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct File {
    /// What its own flare has: below one unit, if it is striped.
    pub(super) own: Content,
    striping: Option<Striping>,
}

impl File {
    /// An empty one; striped by this unit.
    pub(super) fn new(unit: Option<StripeUnit>) -> Self {
        let striping = unit.map(|unit| Striping {
            unit,
            size: 0,
            cut: 0,
            stripes: BTreeMap::new(),
            dying: None,
            trims: BTreeMap::new(),
        });
        Self { own: Content::default(), striping }
    }

    pub(super) fn size(&self) -> u64 {
        self.striping.as_ref().map_or(self.own.length() as u64, |striping| striping.size)
    }

    /// The unit, if a range is not the head's alone.
    pub(super) fn unit_beyond(&self, end: u64) -> Option<StripeUnit> {
        self.unit().filter(|unit| end > unit.bytes())
    }

    /// By which unit it is striped.
    pub(super) fn unit(&self) -> Option<StripeUnit> {
        self.striping.as_ref().map(|striping| striping.unit)
    }

    pub(super) fn has_stripes(&self) -> bool {
        self.striping.as_ref().is_some_and(|striping| !striping.stripes.is_empty())
    }

    pub(super) fn check_own(&self, offset: u64, length: u64, shown: &[u8]) -> Result<(), Mismatch> {
        let Some(striping) = &self.striping else {
            return self.own.check(offset as usize, length as usize, shown);
        };
        // The flare's bytes may end before the file does.
        let end = striping.size.min(offset.saturating_add(length));
        let mut own = self.own.clone();
        if own.length() < end as usize {
            Rc::make_mut(&mut own.bytes).resize(end as usize, 0);
        }
        own.check(offset as usize, end.saturating_sub(offset) as usize, shown)
    }

    /// Bytes are written, through the head.
    pub(super) fn write(&mut self, id: Option<OpId>, offset: u64, data: &Bytes) {
        let Some(striping) = &mut self.striping else {
            return self.own.write(id, offset as usize, data);
        };
        let end = offset + data.len() as u64;
        striping.make(offset, data.len() as u64);
        striping.size = striping.size.max(end);
        for part in striping.unit.parts(offset, data.len() as u64) {
            let bytes = &data[part.at as usize..(part.at + part.length) as usize];
            let stripe = striping.stripes.get_mut(&part.number);
            let content = stripe.map_or(&mut self.own, |stripe| &mut stripe.content);
            content.write(id, part.offset as usize, bytes);
        }
    }

    /// The stripes of a range are made, or made writable.
    pub(super) fn make(&mut self, offset: u64, length: u64) {
        if let Some(striping) = &mut self.striping {
            striping.make(offset, length);
        }
    }

    /// It is made smaller, or larger with zeros.
    pub(super) fn resize(&mut self, id: Option<OpId>, size: u64) {
        let Some(striping) = &mut self.striping else { return self.own.resize(id, size as usize) };
        let own = size.min(striping.unit.bytes()) as usize;
        if own < self.own.length() {
            self.own.resize(id, own);
        }
        if size < striping.size {
            striping.cut(size);
        }
        striping.size = size;
    }

    /// Clients have written stripes up to there.
    pub(super) fn written(&mut self, end: u64, cut: u64) {
        if let Some(striping) = self.striping.as_mut().filter(|striping| striping.cut == cut) {
            striping.size = striping.size.max(end);
        }
    }

    /// The stripe with this handle.
    pub(super) fn stripe(&self, handle: Handle) -> Option<&Stripe> {
        self.striping.as_ref()?.stripes.values().find(|stripe| stripe.handle == Some(handle))
    }

    pub(super) fn change_stripe(&mut self, handle: Handle) -> Option<&mut Stripe> {
        self.striping.as_mut()?.stripes.values_mut().find(|stripe| stripe.handle == Some(handle))
    }

    /// These stripes were made just now.
    pub(super) fn gain(&mut self, gained: &[(u64, Handle)]) {
        let Some(striping) = &mut self.striping else { return };
        for (number, handle) in gained {
            if let Some(stripe) = striping.stripes.get_mut(number) {
                stripe.handle = Some(*handle);
            }
        }
    }

    /// Something was removed in the background.
    pub(super) fn shed(&mut self, shed: &Shed) {
        let Some(striping) = &mut self.striping else { return };
        striping.stripes.retain(|number, _| !shed.lost.contains(number));
        striping.note_dead();
        let gone: Vec<u64> =
            striping.trims.keys().filter(|number| !shed.trimmed.contains(number)).copied().collect();
        gone.into_iter().for_each(|number| striping.clear_end(number));
    }

    /// Whether a layout says what is so.
    pub(super) fn check_layout(&self, asked: &Layout, shown: &LayoutReply) -> Result<(), Mismatch> {
        let Some(striping) = &self.striping else {
            let is_right = shown.unit.is_none() && shown.stripes.is_empty();
            return if is_right { Ok(()) } else { Err("the layout has stripes of a file without".into()) };
        };
        if (shown.unit, shown.cut, shown.next) != (Some(striping.unit), striping.cut, None) {
            return Err(format!(
                "the layout says unit {:?}, cut {}, next {:?}, which has to be {}, {}, none",
                shown.unit, shown.cut, shown.next, striping.unit, striping.cut
            ));
        }
        let (first, last) = match asked.length {
            0 => (1, 0),
            length => {
                let end = asked.offset.saturating_add(length - 1);
                (striping.unit.stripe_of(asked.offset).max(1), striping.unit.stripe_of(end))
            }
        };
        let there = striping.stripes.iter();
        let there =
            there.filter(|(number, _)| (first..=last).contains(*number) && !striping.is_dying(**number));
        let expected: Vec<_> = there
            .map(|(number, stripe)| (*number, stripe.handle, striping.trims.get(number).copied()))
            .collect();
        let shown: Vec<_> = shown.stripes.iter().map(|at| (at.number, Some(at.handle), at.trimmed)).collect();
        if shown == expected {
            return Ok(());
        }
        Err(format!("the layout says {shown:?}, which has to be {expected:?}"))
    }
}

impl Stripe {
    /// Whether who goes by this cut number is let in.
    pub(super) fn takes(&self, cut: u64) -> bool {
        self.cut <= cut
    }

    pub(super) fn write(&mut self, id: Option<OpId>, offset: u64, data: &Bytes) {
        self.content.write(id, offset as usize, data);
    }
}

impl Striping {
    fn is_dying(&self, number: u64) -> bool {
        self.dying.is_some_and(|first| first <= number)
    }

    fn make(&mut self, offset: u64, length: u64) {
        let parts = self.unit.parts(offset, length).map(|part| part.number);
        let numbers: Vec<u64> = parts.filter(|number| *number > 0).collect();
        if numbers.iter().any(|number| self.is_dying(*number)) {
            self.drop_dying();
        }
        for number in numbers {
            self.clear_end(number);
            let cut = self.cut;
            self.stripes.entry(number).or_insert_with(|| Stripe { cut, ..Stripe::default() });
        }
    }

    fn drop_dying(&mut self) {
        let Some(first) = self.dying.take() else { return };
        self.stripes.retain(|number, _| *number < first);
    }

    /// With the last dying stripe nothing is dying any more.
    fn note_dead(&mut self) {
        if let Some(first) = self.dying
            && self.stripes.range(first..).next().is_none()
        {
            self.dying = None;
        }
    }

    /// Clears the end of a stripe, if that is due.
    fn clear_end(&mut self, number: u64) {
        let Some(from) = self.trims.remove(&number) else { return };
        let cut = self.cut;
        if let Some(stripe) = self.stripes.get_mut(&number)
            && stripe.cut < cut
        {
            stripe.cut = cut;
            let content = &mut stripe.content;
            if (from as usize) < content.length() {
                content.resize(cut, from as usize);
            }
        }
    }

    fn cut(&mut self, size: u64) {
        self.cut += 1;
        let beyond = self.unit.first_beyond(size);
        if !self.is_dying(beyond) && self.stripes.range(beyond..).next().is_some() {
            self.dying = Some(beyond);
        }
        self.trims.retain(|number, _| *number < beyond);
        let (last, from) = (self.unit.stripe_of(size), size % self.unit.bytes());
        if last > 0 && from > 0 && !self.is_dying(last) && self.stripes.contains_key(&last) {
            let known = self.trims.entry(last).or_insert(from);
            *known = (*known).min(from);
        }
    }
}
