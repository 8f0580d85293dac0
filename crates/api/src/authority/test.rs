//! A client's stream is made with one HPACK crate and read back with another; ours lies between them.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Lenient;
use super::block::{Blocks, accepted, same_length};
use super::frames::{MAX_HELD, Rewriter};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Names and values as the client meant them.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn request(encoder: &mut httlib_hpack::Encoder<'_>, fields: &[(&[u8], &[u8], u8)]) -> Vec<u8> {
    let mut block = Vec::new();
    for &(name, value, flags) in fields {
        encoder
            .encode((name.to_vec(), value.to_vec(), flags), &mut block)
            .expect("encoded");
    }
    block
}

fn through(input: &[u8], cut: usize) -> (Vec<u8>, bool) {
    let mut rewriter = Rewriter::new();
    let mut out = Vec::new();
    for piece in input.chunks(cut.max(1)) {
        rewriter.feed(piece, &mut out);
    }
    let done = rewriter.is_done();
    rewriter.finish(&mut out);
    (out, done)
}

/// All header blocks of a stream of frames, decoded in order.
fn blocks(bytes: &[u8]) -> Vec<Fields> {
    let mut decoder = loona_hpack::Decoder::new();
    let (mut found, mut fragments) = (Vec::new(), Vec::new());
    let mut rest = bytes.strip_prefix(PREFACE).expect("a preface");
    while let [a, b, c, kind, flags, _, _, _, _, later @ ..] = rest {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        assert!(length <= 16384, "a frame that the parser takes");
        let (payload, later) = later.split_at(length);
        rest = later;
        if *kind == 1 {
            let (padding, payload) = match flags & 8 {
                0 => (0, payload),
                _ => (usize::from(payload[0]), &payload[1..]),
            };
            let payload = if flags & 0x20 == 0 { payload } else { &payload[5..] };
            fragments.extend(&payload[..payload.len() - padding]);
        } else if *kind == 9 {
            fragments.extend(payload);
        }
        if matches!(kind, 1 | 9) && flags & 4 != 0 {
            found.push(decoder.decode(&std::mem::take(&mut fragments)).expect("readable"));
        }
    }
    found
}

/// What the parser behind us is to see.
fn expected(fields: &Fields) -> Fields {
    fields
        .iter()
        .map(|(name, value)| match &name[..] {
            b":authority" if !accepted(value) => (name.clone(), same_length(value)),
            _ => (name.clone(), value.clone()),
        })
        .collect()
}

/// `:authority` and the others, as each kind of client writes them.
const PLAIN: u8 = 0;
const HUFFMAN: u8 = 0x3;
const INDEXED: u8 = 0x4;
const NEVER: u8 = 0x8;
const BEST: u8 = 0x10;

#[test]
fn every_encoding_of_a_socket_path_is_replaced() {
    for value in [
        "/run/berth/berthd.sock",
        "%2Frun%2Fberth%2Fberthd.sock",
        "unix:///run/b",
        "a b",
        "\u{7f}",
    ] {
        for kind in [PLAIN, INDEXED, NEVER] {
            for form in [0, HUFFMAN, BEST, BEST | HUFFMAN] {
                let mut encoder = httlib_hpack::Encoder::default();
                let mut stream = PREFACE.to_vec();
                for id in [1, 3, 5] {
                    let fields: [(&[u8], &[u8], u8); 3] = [
                        (b":path", b"/berth.v1.Supervisor/Run", INDEXED | BEST),
                        (b":authority", value.as_bytes(), kind | form),
                        (b"te", b"trailers", INDEXED | BEST),
                    ];
                    stream.extend(frame(1, 4, id, &request(&mut encoder, &fields)));
                    stream.extend(frame(0, 1, id, b"a message"));
                }
                let (out, done) = through(&stream, usize::MAX);
                assert!(!done, "another may follow");
                let seen = blocks(&out);
                assert_eq!(seen.len(), 3);
                for block in seen {
                    assert_eq!(
                        block[1],
                        (b":authority".to_vec(), same_length(value.as_bytes())),
                        "{value} {kind} {form}"
                    );
                    assert!(accepted(&block[1].1));
                    assert_eq!(block[2].0, b"te");
                }
            }
        }
    }
}

#[test]
fn an_empty_authority_becomes_localhost_where_it_enters_no_table() {
    let mut encoder = httlib_hpack::Encoder::default();
    let mut block = Vec::new();
    encoder.encode(1_u32, &mut block).expect("encoded");
    let new = Blocks::new().see(&block).expect("readable").expect("rewritten");
    assert_eq!(
        loona_hpack::Decoder::new().decode(&new).expect("readable"),
        [(b":authority".to_vec(), b"localhost".to_vec())]
    );
    let block = request(&mut encoder, &[(b":authority", b"", INDEXED)]);
    assert_eq!(Blocks::new().see(&block), Ok(None));
}

#[test]
fn the_layer_is_gone_after_a_request_without_fault() {
    let mut encoder = httlib_hpack::Encoder::default();
    let fine = frame(
        1,
        4,
        1,
        &request(&mut encoder, &[(b":authority", b"localhost", INDEXED)]),
    );
    let stream = [PREFACE, &frame(4, 0, 0, &[]), &fine].concat();
    assert_eq!(through(&stream, 7), (stream, true));
}

#[test]
fn padding_priority_and_continuations_are_understood() {
    let mut encoder = httlib_hpack::Encoder::default();
    let block = request(
        &mut encoder,
        &[(b":authority", b"/run/x.sock", INDEXED), (b"after", b"wards", PLAIN)],
    );
    for cut in 0..=block.len() {
        let (first, second) = block.split_at(cut);
        let padded = [&[3][..], &[0, 0, 0, 0, 16], first, &[0; 3]].concat();
        let stream = [
            PREFACE.to_vec(),
            frame(1, 1 | 8 | 0x20, 1, &padded),
            frame(9, 0, 1, &[]),
            frame(9, 4, 1, second),
            frame(0, 1, 1, b"left alone"),
        ]
        .concat();
        let (out, _) = through(&stream, 5);
        assert_eq!(blocks(&out)[0][0].1, b"-run-x.sock");
        assert_eq!(blocks(&out)[0][1].0, b"after");
        // The end of the stream and its priority are kept.
        let head = &out[PREFACE.len()..];
        assert_eq!(
            (head[3], head[4], &head[9..14]),
            (1, 1 | 4 | 0x20, &[0, 0, 0, 0, 16][..])
        );
        assert!(out.ends_with(b"left alone"));
    }
}

#[test]
fn what_is_malformed_or_too_long_goes_through_as_it_came() {
    let mut encoder = httlib_hpack::Encoder::default();
    let bad = request(&mut encoder, &[(b":authority", b"/run/x.sock", INDEXED)]);
    let headers = frame(1, 0, 1, &bad);
    for after in [
        // Another frame, or another stream's, inside a block.
        frame(0, 0, 1, b"x"),
        frame(9, 4, 3, &[]),
        frame(1, 4, 1, &[]),
        // Without an end.
        frame(9, 0, 1, &vec![0x82; MAX_HELD]),
        frame(9, 0, 1, &[]).repeat(MAX_HELD / 9 + 1),
        // No HPACK.
        frame(9, 4, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        // A table larger than allowed.
        frame(9, 4, 1, &[0x3f, 0xff, 0xff, 0x03]),
    ] {
        let stream = [PREFACE, &headers, &after, &frame(1, 4, 7, &bad)].concat();
        assert_eq!(through(&stream, 1000), (stream, true));
    }
    // Padding, or a priority, that does not fit.
    for (flags, payload) in [(8, &[9, 1][..]), (8, &[]), (0x20, &[0; 4])] {
        let stream = [PREFACE, &frame(1, 4 | flags, 1, payload)].concat();
        assert_eq!(through(&stream, 3), (stream, true));
    }
    let other = b"GET / HTTP/1.1\r\nHost: /run/x.sock\r\n\r\n".to_vec();
    assert_eq!(through(&other, 2), (other, true));
}

#[tokio::test]
async fn bytes_reach_the_reader_before_and_after() {
    let mut encoder = httlib_hpack::Encoder::default();
    let bad = frame(
        1,
        4,
        1,
        &request(&mut encoder, &[(b":authority", b"/run/x.sock", INDEXED)]),
    );
    let half = &frame(0, 0, 1, &[7; 100])[..50];
    for (authority, replaced) in [(&bad, true), (&frame(1, 4, 1, &[0x82]), false)] {
        let sent = [PREFACE, authority, half].concat();
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Lenient::new(server);
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move {
                client.write_all(&sent).await.expect("sent");
                client.shutdown().await.expect("ended");
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.expect("answer");
                answer
            }
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.expect("read");
        server.write_all(b"answer").await.expect("written");
        server.shutdown().await.expect("shut");
        drop(server);
        assert_eq!(writing.await.expect("joined"), b"answer");
        assert_eq!(got != sent, replaced);
        assert!(got.ends_with(half), "cut frames too");
    }
}

prop_compose! {
    fn field()(
        name in prop_oneof![
            2 => Just(b":authority".to_vec()),
            2 => prop::sample::select(vec![&b":path"[..], b"te", b"user-agent", b"www-authenticate", b"accept", b":status"]).prop_map(<[u8]>::to_vec),
            1 => "[a-z]{1,40}".prop_map(String::into_bytes),
        ],
        value in prop_oneof![
            "/[a-z/.]{0,30}".prop_map(String::into_bytes),
            "[a-z0-9.]{1,20}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..300),
        ],
        kind in prop::sample::select(vec![PLAIN, INDEXED, INDEXED, INDEXED, NEVER]),
        form in prop::sample::select(vec![0, 1, 2, 3, BEST, BEST | 3]),
    ) -> (Vec<u8>, Vec<u8>, u8) {
        (name, value, kind | form)
    }
}

proptest! {
    /// However a client encodes, cuts and indexes: the parser sees what was meant, but for refused authorities.
    #[test]
    fn the_parser_sees_the_clients_fields(
        requests in prop::collection::vec((prop::collection::vec(field(), 0..12), prop::option::of(0_u32..=4096), 0_usize..400), 1..12),
        cut in 1_usize..3000,
    ) {
        let mut encoder = httlib_hpack::Encoder::default();
        // The first has a fault, so that the layer stays.
        let first = request(&mut encoder, &[(b":authority", b"/run/x.sock", INDEXED)]);
        let mut stream = [PREFACE, &frame(1, 5, 1, &first)].concat();
        let mut meant = vec![vec![(b":authority".to_vec(), b"-run-x.sock".to_vec())]];
        for (fields, resize, cut) in requests {
            let mut block = Vec::new();
            // Only in front of a field may the table's size change.
            if let Some(size) = resize.filter(|_| !fields.is_empty()) {
                encoder.update_max_dynamic_size(size, &mut block).expect("encoded");
            }
            let mut these = Fields::new();
            for (name, value, flags) in fields {
                these.push((name.clone(), value.clone()));
                encoder.encode((name, value, flags), &mut block).expect("encoded");
            }
            let (first, second) = block.split_at(cut.min(block.len()));
            stream.extend(frame(1, 0, 3, first));
            stream.extend(frame(9, 4, 3, second));
            stream.extend(frame(0, 0, 3, &[0; 77]));
            meant.push(expected(&these));
        }
        let (out, _) = through(&stream, cut);
        prop_assert_eq!(blocks(&out), meant);
    }

    /// Any bytes in any pieces: no panic, no byte lost, nothing held without bound.
    #[test]
    fn garbage_goes_through(
        frames in prop::collection::vec((prop::sample::select(vec![0_u8, 1, 1, 1, 4, 9, 9]), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
        tail in prop::collection::vec(any::<u8>(), 0..100),
        cut in 1_usize..500,
    ) {
        let mut stream = PREFACE.to_vec();
        for (kind, flags, payload) in &frames {
            stream.extend(frame(*kind, *flags, 1, payload));
        }
        stream.extend(&tail);
        let (out, _) = through(&stream, cut);
        let (whole, _) = through(&stream, usize::MAX);
        prop_assert_eq!(&out, &whole, "pieces make no difference");
    }

    #[test]
    fn any_block_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Blocks::new().see(&block);
    }

    #[test]
    fn a_replacement_is_accepted(value in prop::collection::vec(any::<u8>(), 1..2000)) {
        let new = same_length(&value);
        prop_assert!(accepted(&new));
        prop_assert_eq!(new.len(), value.len());
    }
}
