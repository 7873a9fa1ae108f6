//! The recording's transactions told as a server tells them before their ends, cut and interleaved by a seed: the changes are the same.

use super::*;

/// Bytes of a frame before the plugin's message.
pub(super) const PAYLOAD: usize = 30;

/// How a transaction is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Whole,
    Pieces,
    Prepared,
    PiecesPrepared,
}

/// A transaction of the recording.
struct Told {
    telling: Telling,
    begin: Vec<u8>,
    rows: Vec<Vec<u8>>,
    commit: Vec<u8>,
    xid: u32,
    /// Rows that this session has been told.
    next: usize,
    /// Whether it was prepared.
    is_prepared: bool,
}

impl Told {
    fn in_pieces(&self) -> bool {
        matches!(self.telling, Telling::Pieces | Telling::PiecesPrepared)
    }

    fn gid(&self) -> Vec<u8> {
        format!("gid {}\0", self.xid).into_bytes()
    }
}

/// `frame` with another message in it.
pub(super) fn with(frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut other = frame[..PAYLOAD].to_vec();
    other.extend_from_slice(payload);
    let length = other.len() as u32 - 1;
    other[1..5].copy_from_slice(&length.to_be_bytes());
    other
}

/// A row or a description as it is between Stream Start and Stream Stop.
pub(super) fn streamed(frame: &[u8], xid: u32) -> Vec<u8> {
    let (kind, rest) = frame[PAYLOAD..].split_at(1);
    with(frame, &[kind, &xid.to_be_bytes(), rest].concat())
}

fn transactions(frames: &[Vec<u8>], random: &mut Seed) -> Vec<Told> {
    let mut found: Vec<Told> = Vec::new();
    for frame in frames {
        match kind(frame) {
            Some(b'B') => found.push(Told {
                telling: [
                    Telling::Whole,
                    Telling::Pieces,
                    Telling::Prepared,
                    Telling::PiecesPrepared,
                ][random.below(4)],
                xid: u32::from_be_bytes(frame[PAYLOAD + 17..][..4].try_into().unwrap()),
                begin: frame.clone(),
                rows: Vec::new(),
                commit: Vec::new(),
                next: 0,
                is_prepared: false,
            }),
            Some(b'C') => found.last_mut().unwrap().commit = frame.clone(),
            Some(b'I' | b'U' | b'D') => found.last_mut().unwrap().rows.push(frame.clone()),
            _ => {}
        }
    }
    found
}

/// A server that has some of the transactions open.
struct Server<'a> {
    random: Seed,
    told: Vec<Told>,
    description: &'a [u8],
    /// After the last commit.
    end: u64,
    memory: Memory,
    /// What of a message is on the way when the line is cut.
    cuts: bool,
}

impl Server<'_> {
    fn send(&mut self, frame: &[u8]) {
        self.memory.feed(frame).unwrap();
        if self.random.below(200) == 0 {
            self.memory.seal();
        }
    }

    /// A piece of transaction `at`, with rows in it that are rolled back afterwards.
    fn piece(&mut self, at: usize) {
        let told = &self.told[at];
        let (xid, first) = (told.xid, told.next);
        let last = (first + 1 + self.random.below(400)).min(told.rows.len());
        let rows: Vec<Vec<u8>> = told.rows[first..last].to_vec();
        let start = [b"S".as_slice(), &xid.to_be_bytes(), &[u8::from(first == 0)]].concat();
        self.send(&with(&rows[0], &start));
        let mut aborted = Vec::new();
        if first == 0 {
            self.send(&streamed(self.description, xid));
        }
        for (n, row) in rows.iter().enumerate() {
            // Subtransactions commit by themselves; those that are rolled back say so afterwards.
            let part = xid + 1_000_000 * (self.random.below(3) as u32);
            if self.random.below(20) == 0 {
                let lost = xid + 500_000 + (first + n) as u32;
                self.send(&streamed(&rows[self.random.0 as usize % rows.len()], lost));
                aborted.push(lost);
            }
            self.send(&streamed(row, part));
        }
        self.send(&with(&rows[0], b"E"));
        for part in aborted {
            let abort = [b"A".as_slice(), &xid.to_be_bytes(), &part.to_be_bytes()].concat();
            self.send(&with(&rows[0], &abort));
        }
        self.told[at].next = last;
    }

    /// A whole transaction that is open on the server and never commits.
    fn never_was(&mut self, at: usize) {
        let row = self.told[at].rows[0].clone();
        let xid = 900_000_000u32.to_be_bytes();
        self.send(&with(&row, &[b"S".as_slice(), &xid, &[1]].concat()));
        self.send(&streamed(&row, 900_000_000));
        self.send(&with(&row, b"E"));
        self.send(&with(&row, &[b"A".as_slice(), &xid, &xid].concat()));
    }

    /// `prepare LSN, end LSN, time, xid, gid`, as the prepare family has it.
    fn prepare(&self, at: usize) -> Vec<u8> {
        let told = &self.told[at];
        let (end, xid) = (self.end.to_be_bytes(), told.xid.to_be_bytes());
        [&end, &end, &[0; 8], xid.as_slice(), &told.gid()].concat()
    }

    fn prepare_whole(&mut self, at: usize) {
        let prepare = self.prepare(at);
        let frame = self.told[at].begin.clone();
        self.send(&with(&frame, &[b"b".as_slice(), &prepare].concat()));
        self.send(self.description);
        for row in self.told[at].rows.clone() {
            self.send(&row);
        }
        self.send(&with(&frame, &[b"P\0".as_slice(), &prepare].concat()));
        self.told[at].is_prepared = true;
    }

    fn prepare_pieces(&mut self, at: usize) {
        let prepare = [b"p\0".as_slice(), &self.prepare(at)].concat();
        let frame = with(&self.told[at].begin, &prepare);
        self.send(&frame);
        self.told[at].is_prepared = true;
    }

    /// Another session: what is open and not prepared is told again.
    fn cut(&mut self) {
        if self.random.below(2) == 0 {
            self.memory.seal();
        }
        self.memory.begin();
        for told in self.told.iter_mut().filter(|told| !told.is_prepared) {
            told.next = 0;
        }
    }

    /// Tells the commit of transaction `at`, and first whatever of it has not been told.
    fn end(&mut self, at: usize) {
        let xid = self.told[at].xid.to_be_bytes();
        let commit = self.told[at].commit.clone();
        let body = commit[PAYLOAD + 1..].to_vec();
        match self.told[at].telling {
            Telling::Whole => {
                let rows = self.told[at].rows.clone();
                if self.cuts && self.random.below(2) == 0 {
                    // Part of it, before the line breaks.
                    self.send(&self.told[at].begin.clone());
                    self.send(self.description);
                    let some = self.random.below(rows.len());
                    rows[..some].iter().for_each(|row| self.send(row));
                    self.cut();
                }
                self.send(&self.told[at].begin.clone());
                self.send(self.description);
                rows.iter().for_each(|row| self.send(row));
                self.send(&commit);
            }
            Telling::Pieces => {
                while self.told[at].next < self.told[at].rows.len() {
                    self.piece(at);
                }
                self.send(&with(&commit, &[b"c".as_slice(), &xid, &body].concat()));
            }
            Telling::Prepared | Telling::PiecesPrepared => {
                if !self.told[at].is_prepared && self.told[at].in_pieces() {
                    while self.told[at].next < self.told[at].rows.len() {
                        self.piece(at);
                    }
                    self.prepare_pieces(at);
                } else if !self.told[at].is_prepared {
                    self.prepare_whole(at);
                }
                let gid = self.told[at].gid();
                self.send(&with(&commit, &[b"K", &*body, &xid, &gid].concat()));
            }
        }
        self.end = u64::from_be_bytes(body[9..17].try_into().unwrap());
    }
}

/// The changes, the positions, and where the last transaction ends.
fn tell(seed: u64, cuts: bool, batch_bytes: usize) -> (Vec<Change>, Vec<Lsn>, Lsn) {
    let frames = frames("postgres-15-20k");
    let description = (frames.iter())
        .find(|frame| kind(frame) == Some(b'R'))
        .unwrap();
    let mut random = Seed(seed);
    let told = transactions(&frames, &mut random);
    assert!(told.len() > 20);
    let mut server = Server {
        random,
        told,
        description,
        end: 1,
        memory: Memory::new(&["*.*"], batch_bytes),
        cuts,
    };
    for at in 0..server.told.len() {
        // Some of the next ones write before this one ends.
        for _ in 0..server.random.below(6) {
            let other = (at + server.random.below(6)).min(server.told.len() - 1);
            let told = &server.told[other];
            let is_whole = told.next == told.rows.len();
            match (told.telling, told.is_prepared) {
                (Telling::Pieces | Telling::PiecesPrepared, false) if !is_whole => {
                    server.piece(other);
                }
                (Telling::PiecesPrepared, false) => server.prepare_pieces(other),
                (Telling::Prepared, false) => server.prepare_whole(other),
                _ => server.never_was(other),
            }
        }
        if cuts && server.random.below(4) == 0 {
            server.cut();
        }
        server.end(at);
    }
    let (changes, ends) = server.memory.finish();
    (changes, ends, Lsn(server.end))
}

#[test]
fn what_comes_before_its_end_gives_the_changes_of_what_comes_whole() {
    let expected = whole(&frames("postgres-15-20k"), &["*.*"], 1 << 20).0;
    for seed in 0..10 {
        let (changes, ends, end) = tell(seed, false, 1 << (12 + seed % 5));
        assert_eq!(changes.len(), expected.len(), "seed {seed}");
        assert!(changes == expected, "seed {seed}");
        assert!(ends.is_sorted(), "seed {seed}");
        assert_eq!(ends.last(), Some(&end), "seed {seed}");
    }
}

#[test]
fn a_cut_line_loses_nothing_of_what_comes_before_its_end() {
    let expected = whole(&frames("postgres-15-20k"), &["*.*"], 1 << 20).0;
    for seed in 0..20 {
        let (changes, ends, end) = tell(seed, true, 16 << 10);
        assert!(changes == expected, "seed {seed}");
        assert!(ends.is_sorted(), "seed {seed}");
        assert_eq!(ends.last(), Some(&end), "seed {seed}");
    }
}

/// Two recordings of one log: as a server sends it before its ends where it is asked to, and as it sends it otherwise.
#[test]
fn a_servers_pieces_give_the_changes_of_its_whole_transactions() {
    let told = frames("postgres-15-streamed");
    for message in *b"SEAcpKr" {
        let is_it = |frame: &&Vec<u8>| kind(frame) == Some(message);
        assert!(
            told.iter().any(|frame| is_it(&frame)),
            "{}",
            char::from(message)
        );
    }
    let expected = whole(&frames("postgres-15-streamed-whole"), &["*.*"], 1 << 20).0;
    assert_eq!(expected.len(), 12_000);
    for bits in [10, 14, 20] {
        let changes = whole(&told, &["*.*"], 1 << bits).0;
        assert!(changes == expected, "batches of {} bytes", 1 << bits);
    }
}

/// A row that cannot be read back ends the stream with its place; what is misplaced never becomes a change.
#[test]
fn what_is_out_of_place_is_an_error() {
    let frames = frames("postgres-15-20k");
    let find = |wanted| {
        frames
            .iter()
            .find(|frame| kind(frame) == Some(wanted))
            .unwrap()
    };
    let (row, begin) = (find(b'I'), find(b'B'));
    let xid = 7u32.to_be_bytes();
    let start = |first| with(row, &[b"S".as_slice(), &xid, &[first]].concat());
    let commit = [b"c".as_slice(), &xid, &[0; 25]].concat();
    let prepared = [b"K".as_slice(), &[0; 25], &xid, b"gid\0"].concat();
    let cases: [(&[Vec<u8>], &str); 8] = [
        (&[start(0)], "without the first"),
        (&[with(row, b"E")], "an end without its beginning"),
        (&[with(row, &commit)], "which has not come"),
        (
            &[with(row, &prepared)],
            "was prepared before the stream began",
        ),
        (&[start(1), start(1)], "inside one that has not ended"),
        (&[begin.clone(), start(1)], "inside the one that commits"),
        (&[start(1), row[..PAYLOAD + 3].to_vec()], ""),
        // A row of a table that this transaction did not describe.
        (
            &[
                start(1),
                streamed(row, 7),
                with(row, b"E"),
                with(row, &commit),
            ],
            "which was not described",
        ),
    ];
    for (frames, words) in cases {
        let mut memory = Memory::new(&["*.*"], 1 << 20);
        let mut wire = frames.concat();
        if words.is_empty() {
            let cut = frames[0].len();
            let length = (wire.len() - cut) as u32 - 1;
            wire[cut + 1..cut + 5].copy_from_slice(&length.to_be_bytes());
        }
        let error = memory.feed(&wire).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(memory.finish().0.is_empty(), "{words}");
    }
}
