//! Detection of arrays that share memory in a step: a written array with another written or read array.
//!
//! Comparing two arrays exactly is expensive and runs Python code, so spans (first and last byte) are compared first:
//!
//! ```text
//! sort the written spans by start, each with the furthest end of those before it
//! for each span: walk back while the furthest end is beyond its start, and report the spans that overlap it
//! ```
//!
//! Without overlaps, this takes one sort and one comparison per span. If the spans equal those of the last successful check, the
//! check is skipped.

use std::collections::BTreeMap;

/// The address range of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Identifies which bytes of the range the array uses: 0 for all bytes, and a distinct number for each other stride pattern.
    pub pattern: u64,
}

impl Span {
    /// The same bytes at another address.
    #[must_use]
    pub const fn moved_to(self, start: usize) -> Self {
        Self { start, end: start + (self.end - self.start), ..self }
    }
}

/// A union of spans, as disjoint regions.
#[derive(Debug, Default)]
pub struct SpanSet {
    /// The ends of the regions by their starts.
    ends: BTreeMap<usize, usize>,
}

impl SpanSet {
    /// Whether a span overlaps a region.
    #[must_use]
    pub fn overlaps(&self, span: Span) -> bool {
        self.before(span.end).is_some_and(|(_, end)| end > span.start)
    }

    /// Adds a span.
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

/// Two overlapping spans, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Two written spans.
    Written(usize, usize),
    /// A written span and a read one.
    Read(usize, usize),
}

/// Finds overlapping spans, and stores the spans of the last successful check.
#[derive(Debug, Default)]
pub struct OverlapChecker {
    written: Vec<Span>,
    read: Vec<Span>,
    sorted: Vec<SortedSpan>,
}

/// A written span in a list sorted by start.
#[derive(Debug)]
struct SortedSpan {
    span: Span,
    /// Its index among the written spans.
    index: usize,
    /// The largest end of this span and all spans before it.
    furthest: usize,
}

impl OverlapChecker {
    /// Calls `on_overlap` for each pair of overlapping spans. After an error it stops and stores no spans, so the next call checks
    /// all spans again. Overlapping spans do not imply shared elements: two columns of a matrix share none.
    ///
    /// # Errors
    /// Those of `on_overlap`.
    pub fn check<E>(
        &mut self,
        written: &[Span],
        read: &[Span],
        mut on_overlap: impl FnMut(Overlap) -> Result<(), E>,
    ) -> Result<(), E> {
        let changed = self.written != written;
        if !changed && self.read == read {
            return Ok(());
        }
        self.read.clear();
        if changed {
            self.sort(written);
            for (i, &SortedSpan { span, index, .. }) in self.sorted.iter().enumerate() {
                for other in Self::overlapping(&self.sorted[..i], span) {
                    on_overlap(Overlap::Written(other.min(index), other.max(index)))?;
                }
            }
            self.written.extend_from_slice(written);
        }
        for (index, &span) in read.iter().enumerate() {
            let before = self.sorted.partition_point(|other| other.span.start < span.end);
            for other in Self::overlapping(&self.sorted[..before], span) {
                on_overlap(Overlap::Read(other, index))?;
            }
        }
        self.read.extend_from_slice(read);
        Ok(())
    }

    fn sort(&mut self, written: &[Span]) {
        self.written.clear();
        self.sorted.clear();
        let sorted = written.iter().enumerate().map(|(index, &span)| SortedSpan { span, index, furthest: 0 });
        self.sorted.extend(sorted);
        self.sorted.sort_unstable_by_key(|sorted| sorted.span.start);
        let mut furthest = 0;
        for sorted in &mut self.sorted {
            furthest = furthest.max(sorted.span.end);
            sorted.furthest = furthest;
        }
    }

    /// The indices of the spans that overlap `span`, among spans that start before its end.
    fn overlapping(sorted: &[SortedSpan], span: Span) -> impl Iterator<Item = usize> {
        let reaching = sorted.iter().rev().take_while(move |other| other.furthest > span.start);
        reaching.filter(move |other| other.span.end > span.start).map(|other| other.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(checker: &mut OverlapChecker, written: &[(usize, usize)], read: &[(usize, usize)]) -> Vec<Overlap> {
        let spans = |spans: &[(usize, usize)]| -> Vec<Span> {
            spans.iter().map(|&(start, end)| Span { start, end, pattern: 0 }).collect()
        };
        let mut overlaps = Vec::new();
        let result: Result<(), ()> = checker.check(&spans(written), &spans(read), |overlap| {
            overlaps.push(overlap);
            Ok(())
        });
        assert!(result.is_ok());
        overlaps
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert_eq!(found(&mut OverlapChecker::default(), &[(4, 8), (0, 4), (8, 12)], &[(12, 16)]), []);
    }

    #[test]
    fn every_overlapping_pair_is_found() {
        let written = [(0, 100), (10, 20), (30, 40), (90, 110)];
        let all = found(&mut OverlapChecker::default(), &written, &[(35, 36), (105, 120)]);
        let (w, r) = (Overlap::Written, Overlap::Read);
        assert_eq!(all, [w(0, 1), w(0, 2), w(0, 3), r(2, 0), r(0, 0), r(3, 1)]);
    }

    #[test]
    fn unchanged_spans_are_not_checked_again() {
        let mut overlaps = OverlapChecker::default();
        assert_eq!(found(&mut overlaps, &[(0, 8), (4, 12)], &[(20, 24)]), [Overlap::Written(0, 1)]);
        assert_eq!(found(&mut overlaps, &[(0, 8), (4, 12)], &[(20, 24)]), []);
        assert_eq!(found(&mut overlaps, &[(0, 8), (4, 12)], &[(11, 12)]), [Overlap::Read(1, 0)]);
    }

    #[test]
    fn a_changed_pattern_is_checked_again() {
        let mut overlaps = OverlapChecker::default();
        let span = |pattern| Span { start: 0, end: 8, pattern };
        for pattern in [1, 2] {
            let mut checked = 0;
            let result: Result<(), ()> = overlaps.check(&[span(1)], &[span(pattern)], |_| {
                checked += 1;
                Ok(())
            });
            assert_eq!((result, checked), (Ok(()), 1));
        }
    }

    #[test]
    fn a_span_set_is_the_union_of_its_spans() {
        let span = |start, end| Span { start, end, pattern: 0 };
        let mut set = SpanSet::default();
        for (start, end) in [(10, 20), (30, 40), (50, 60), (15, 35), (20, 21)] {
            set.insert(span(start, end));
        }
        assert_eq!(set.ends.into_iter().collect::<Vec<_>>(), [(10, 40), (50, 60)]);
        let mut set = SpanSet::default();
        set.insert(span(10, 20));
        let overlaps: Vec<_> = [(0, 10), (20, 30), (0, 11), (19, 30), (0, 30), (12, 13)]
            .into_iter()
            .map(|(start, end)| set.overlaps(span(start, end)))
            .collect();
        assert_eq!(overlaps, [false, false, true, true, true, true]);
    }

    #[test]
    fn spans_are_checked_again_after_an_error() {
        let mut overlaps = OverlapChecker::default();
        let spans = [Span { start: 0, end: 8, pattern: 0 }, Span { start: 4, end: 12, pattern: 0 }];
        assert_eq!(overlaps.check(&spans, &[], Err), Err(Overlap::Written(0, 1)));
        assert_eq!(overlaps.check(&spans, &[], Err), Err(Overlap::Written(0, 1)));
    }
}
