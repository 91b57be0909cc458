//! Whether arrays of a step share memory: those that are written with any other.
//!
//! Spans are compared first. What was compared at the last step, and has not moved, is not compared again.

use std::collections::BTreeMap;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// What tells which bytes in between are meant: 0 if all are, else a number that another pattern has not.
    pub pattern: u64,
}

impl Span {
    /// The same bytes at another address.
    #[must_use]
    pub const fn moved_to(self, start: usize) -> Self {
        Self { start, end: start + (self.end - self.start), ..self }
    }
}

/// The spans of the last step that was found good.
#[derive(Debug, Default)]
pub struct OverlapChecker {
    written: Vec<Span>,
    read: Vec<Span>,
    /// The written spans by their start, each with its number and the furthest end so far.
    sorted: Vec<(Span, usize, usize)>,
}

/// The memory that spans cover together.
#[derive(Debug, Default)]
pub struct SpanSet {
    /// The ends of regions by their starts. No two regions meet.
    ends: BTreeMap<usize, usize>,
}

impl SpanSet {
    /// Whether a span reaches into a region.
    #[must_use]
    pub fn overlaps(&self, span: Span) -> bool {
        self.before(span.end).is_some_and(|(_, end)| end > span.start)
    }

    /// Adds the memory of a span.
    pub fn insert(&mut self, span: Span) {
        let (mut start, mut end) = (span.start, span.end);
        while let Some((first, last)) = self.before(end).filter(|&(_, last)| last > start) {
            self.ends.remove(&first);
            (start, end) = (start.min(first), end.max(last));
        }
        self.ends.insert(start, end);
    }

    /// The last region that starts before an address.
    fn before(&self, address: usize) -> Option<(usize, usize)> {
        self.ends.range(..address).next_back().map(|(&start, &end)| (start, end))
    }
}

/// Two arrays whose spans meet: the number of one that is written, and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Two that are written.
    Written(usize, usize),
    /// One that is written, and one that is read.
    Read(usize, usize),
}

impl OverlapChecker {
    /// Calls `on_overlap` for each pair of spans that meet, and stops at its first error, with nothing remembered. Spans can meet
    /// where arrays don't share an element, as two columns of a matrix do.
    ///
    /// # Errors
    /// What `on_overlap` returns.
    pub fn check<E>(
        &mut self,
        written: &[Span],
        read: &[Span],
        mut on_overlap: impl FnMut(Overlap) -> Result<(), E>,
    ) -> Result<(), E> {
        let moved = self.written != written;
        if !moved && self.read == read {
            return Ok(());
        }
        self.read.clear();
        if moved {
            self.written.clear();
            self.sorted.clear();
            self.sorted.extend(written.iter().enumerate().map(|(number, &span)| (span, number, 0)));
            self.sorted.sort_unstable_by_key(|(span, ..)| span.start);
            let mut furthest = 0;
            for (span, _, end) in &mut self.sorted {
                furthest = furthest.max(span.end);
                *end = furthest;
            }
            for (i, &(span, number, _)) in self.sorted.iter().enumerate() {
                for other in Self::meeting(&self.sorted[..i], span) {
                    on_overlap(Overlap::Written(other.min(number), other.max(number)))?;
                }
            }
            self.written.extend_from_slice(written);
        }
        for (number, &span) in read.iter().enumerate() {
            let before = self.sorted.partition_point(|(other, ..)| other.start < span.end);
            for other in Self::meeting(&self.sorted[..before], span) {
                on_overlap(Overlap::Read(other, number))?;
            }
        }
        self.read.extend_from_slice(read);
        Ok(())
    }

    /// The numbers of those spans, all of which start before this one's end, that reach into it.
    fn meeting(sorted: &[(Span, usize, usize)], span: Span) -> impl Iterator<Item = usize> {
        let reaching = sorted.iter().rev().take_while(move |(.., furthest)| *furthest > span.start);
        reaching.filter(move |(other, ..)| other.end > span.start).map(|&(_, number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meetings(overlaps: &mut OverlapChecker, written: &[(usize, usize)], read: &[(usize, usize)]) -> Vec<Overlap> {
        let spans = |spans: &[(usize, usize)]| -> Vec<Span> {
            spans.iter().map(|&(start, end)| Span { start, end, pattern: 0 }).collect()
        };
        let mut found = Vec::new();
        let result: Result<(), ()> = overlaps.check(&spans(written), &spans(read), |meeting| {
            found.push(meeting);
            Ok(())
        });
        assert!(result.is_ok());
        found
    }

    #[test]
    fn neighbours_do_not_meet() {
        assert_eq!(meetings(&mut OverlapChecker::default(), &[(4, 8), (0, 4), (8, 12)], &[(12, 16)]), []);
    }

    #[test]
    fn every_pair_that_meets_is_found() {
        let written = [(0, 100), (10, 20), (30, 40), (90, 110)];
        let found = meetings(&mut OverlapChecker::default(), &written, &[(35, 36), (105, 120)]);
        let (w, r) = (Overlap::Written, Overlap::Read);
        assert_eq!(found, [w(0, 1), w(0, 2), w(0, 3), r(2, 0), r(0, 0), r(3, 1)]);
    }

    #[test]
    fn what_has_not_moved_is_not_confirmed_again() {
        let mut overlaps = OverlapChecker::default();
        assert_eq!(meetings(&mut overlaps, &[(0, 8), (4, 12)], &[(20, 24)]), [Overlap::Written(0, 1)]);
        assert_eq!(meetings(&mut overlaps, &[(0, 8), (4, 12)], &[(20, 24)]), []);
        assert_eq!(meetings(&mut overlaps, &[(0, 8), (4, 12)], &[(11, 12)]), [Overlap::Read(1, 0)]);
    }

    #[test]
    fn another_pattern_of_the_same_span_is_confirmed_again() {
        let mut overlaps = OverlapChecker::default();
        let span = |pattern| Span { start: 0, end: 8, pattern };
        for pattern in [1, 2] {
            let mut confirmed = 0;
            let result: Result<(), ()> = overlaps.check(&[span(1)], &[span(pattern)], |_| {
                confirmed += 1;
                Ok(())
            });
            assert_eq!((result, confirmed), (Ok(()), 1));
        }
    }

    #[test]
    fn regions_are_the_union_of_spans() {
        let span = |start, end| Span { start, end, pattern: 0 };
        let mut regions = SpanSet::default();
        for (start, end) in [(10, 20), (30, 40), (50, 60), (15, 35), (20, 21)] {
            regions.insert(span(start, end));
        }
        assert_eq!(regions.ends.into_iter().collect::<Vec<_>>(), [(10, 40), (50, 60)]);
        let mut regions = SpanSet::default();
        regions.insert(span(10, 20));
        let meets: Vec<_> = [(0, 10), (20, 30), (0, 11), (19, 30), (0, 30), (12, 13)]
            .into_iter()
            .map(|(start, end)| regions.overlaps(span(start, end)))
            .collect();
        assert_eq!(meets, [false, false, true, true, true, true]);
    }

    #[test]
    fn nothing_is_remembered_of_an_error() {
        let mut overlaps = OverlapChecker::default();
        let spans = [Span { start: 0, end: 8, pattern: 0 }, Span { start: 4, end: 12, pattern: 0 }];
        assert_eq!(overlaps.check(&spans, &[], Err), Err(Overlap::Written(0, 1)));
        assert_eq!(overlaps.check(&spans, &[], Err), Err(Overlap::Written(0, 1)));
    }
}
