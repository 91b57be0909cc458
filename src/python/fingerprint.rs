//! The fingerprint of a plan: all that it was built from, as one sequence of words.
//!
//! A plan is reused if building it again would give the same plan. Building records what it reads of parameters and arrays in a
//! `Vec<usize>`, and the next step puts the same into a [`Comparison`] with it. The encoding is prefix-free (counts come before what they
//! count), so equal words mean equal facts.

/// Takes the words of a fingerprint: a vector records them, a [`Comparison`] compares them.
pub(super) trait Words {
    /// Takes the next words. Returns false if they differ from those that were recorded.
    fn put<const N: usize>(&mut self, words: [usize; N]) -> bool;
}

impl Words for Vec<usize> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, words: [usize; N]) -> bool {
        self.extend_from_slice(&words);
        true
    }
}

/// The recorded words that are still to be compared.
pub(super) struct Comparison<'a>(pub(super) &'a [usize]);

impl Words for Comparison<'_> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, words: [usize; N]) -> bool {
        let Some((recorded, rest)) = self.0.split_first_chunk::<N>() else { return false };
        self.0 = rest;
        // Word by word: comparing the arrays would store the words first.
        recorded.iter().zip(words).all(|(recorded, word)| *recorded == word)
    }
}
