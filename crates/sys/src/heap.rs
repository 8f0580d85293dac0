//! An allocator for programs that fork helpers: malloc, until a process says that it will not live long ([`live_briefly`]). From then
//! on memory is taken off the front of one large piece and hardly ever given back: no lists are searched, nothing is merged, and the
//! pages that hold malloc's lists, shared with the parent, are not written to.
//!
//! Invariant: every piece goes back to whom it came from; its address tells who that was.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Room for a short life. Pages that nobody touches cost nothing; what does not fit comes from malloc.
const ROOM: usize = 64 << 20;

/// The next free byte, and the end of the room; equal = there is none.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// For `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap;

/// This process, a child after a fork, will soon end or replace its program. Nothing changes where there is no memory for it, or
/// where [`Heap`] is not the allocator.
pub fn live_briefly() {
    if END.load(Ordering::Acquire) != 0 {
        return;
    }
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let room = unsafe { mmap_anonymous(std::ptr::null_mut(), ROOM, ProtFlags::READ | ProtFlags::WRITE, flags) };
    if let Ok(room) = room {
        let start = room.expose_provenance();
        NEXT.store(start, Ordering::Release);
        END.store(start + ROOM, Ordering::Release);
    }
}

/// Takes a piece off the front.
fn take(layout: Layout) -> Option<*mut u8> {
    let end = END.load(Ordering::Acquire);
    if end == 0 {
        return None;
    }
    let mut next = NEXT.load(Ordering::Relaxed);
    loop {
        let start = next.checked_next_multiple_of(layout.align())?;
        let after = start.checked_add(layout.size()).filter(|after| *after <= end)?;
        match NEXT.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(std::ptr::with_exposed_provenance_mut(start)),
            Err(now) => next = now,
        }
    }
}

fn is_taken(piece: *mut u8) -> bool {
    let end = END.load(Ordering::Acquire);
    end != 0 && (end - ROOM..end).contains(&piece.addr())
}

// SAFETY: pieces from `take` are inside the mapping, which is never unmapped, aligned, and overlap none that is in use: NEXT only
// moves by a compare-and-exchange over bytes that belong to the one who does it. All others are System's, and go back to it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match take(layout) {
            Some(piece) => piece,
            // SAFETY: the caller's promise is passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_taken(piece) {
            // The last one taken is free for the next.
            let (start, after) = (piece.addr(), piece.addr() + layout.size());
            let _ = NEXT.compare_exchange(after, start, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            // SAFETY: it came from there.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_taken(piece) {
            // SAFETY: it came from there; the caller's promise is passed on.
            return unsafe { System.realloc(piece, layout, size) };
        }
        let (start, after) = (piece.addr(), piece.addr() + layout.size());
        let fits = start
            .checked_add(size)
            .filter(|end| *end <= END.load(Ordering::Acquire));
        let in_place = fits.is_some_and(|new_end| {
            let moved = NEXT.compare_exchange(after, new_end, Ordering::Relaxed, Ordering::Relaxed);
            moved.is_ok()
        });
        if in_place || size <= layout.size() {
            return piece;
        }
        // SAFETY: alloc and dealloc as the caller could call them itself: the new layout is valid by its promise; both pieces have
        // the copied length and do not overlap, for the old one is in use.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                std::ptr::copy_nonoverlapping(piece, new, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::process::{Ended, Fork, exit_now, fork, wait};

    fn short_life() {
        // SAFETY: pieces are used within their layouts and given back once.
        unsafe {
            let layout = Layout::from_size_align(100, 16).unwrap();
            let early = Heap.alloc(layout);
            live_briefly();
            let first = Heap.alloc(layout);
            assert!(!is_taken(early) && is_taken(first) && first.addr().is_multiple_of(16));
            first.write_bytes(7, 100);
            assert_eq!(
                Heap.realloc(first, layout, 200),
                first,
                "the last one grows where it is"
            );
            let layout = Layout::from_size_align(200, 16).unwrap();
            let second = Heap.alloc_zeroed(layout);
            let moved = Heap.realloc(first, layout, 4000);
            assert!(moved != first && *moved.add(99) == 7 && *second == 0);
            Heap.dealloc(second, layout);
            let large = Layout::from_size_align(ROOM, 8).unwrap();
            let elsewhere = Heap.alloc(large);
            assert!(!elsewhere.is_null() && !is_taken(elsewhere));
            Heap.dealloc(elsewhere, large);
            let layout = Layout::from_size_align(4000, 16).unwrap();
            Heap.dealloc(moved, layout);
            assert_eq!(Heap.alloc(layout), moved, "what was given back last comes next");
            Heap.dealloc(early, Layout::from_size_align(100, 16).unwrap());
        }
    }

    #[test]
    fn a_short_life_takes_its_memory_in_one_row() {
        let pid = match fork().unwrap() {
            Fork::Child => exit_now(i32::from(std::panic::catch_unwind(short_life).is_err())),
            Fork::Parent { pid } => pid,
        };
        assert_eq!(wait(pid).unwrap(), Some(Ended::Exited(0)));
    }
}
