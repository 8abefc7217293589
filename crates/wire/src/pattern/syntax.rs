//! The syntax of host patterns.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Literal(u8),
    One(Set),
    Star,
    Choice(Vec<Vec<Self>>),
}

/// Which ASCII characters a position may have, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(pub(super) u128);

impl Set {
    /// Every character; `/` is in no host name and in no set.
    pub(super) const ANY: Self = Self(!(1 << b'/'));

    /// One character alone; none for what is not ASCII.
    pub(super) fn of(byte: u8) -> Self {
        Self(if byte.is_ascii() { 1 << byte } else { 0 })
    }

    pub(super) fn has(self, byte: u8) -> bool {
        byte.is_ascii() && self.0 >> byte & 1 == 1
    }

    fn add(&mut self, byte: u8) {
        self.0 |= 1 << byte.to_ascii_lowercase();
        self.0 |= 1 << byte.to_ascii_uppercase();
    }
}

/// What is still to be read.
pub(super) struct Parser<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text.as_bytes(),
            depth: 0,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Nodes up to the end, or up to the `,` or `}` that ends an alternative, which is left.
    pub(super) fn sequence(&mut self) -> Result<Vec<Node>, &'static str> {
        let mut nodes = Vec::new();
        while let Some(&byte) = self.rest.first() {
            if self.depth > 0 && (byte == b',' || byte == b'}') {
                break;
            }
            self.rest = &self.rest[1..];
            match byte {
                b'*' if nodes.last() == Some(&Node::Star) => {}
                b'*' => nodes.push(Node::Star),
                b'?' => nodes.push(Node::One(Set::ANY)),
                b'[' => nodes.push(Node::One(self.set()?)),
                b'{' => nodes.push(self.choice()?),
                b'\\' => nodes.push(literal(
                    self.next().ok_or("ends in a `\\` with nothing to protect")?,
                )),
                byte => nodes.push(literal(byte)),
            }
        }
        Ok(nodes)
    }

    fn choice(&mut self) -> Result<Node, &'static str> {
        self.depth += 1;
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence()?);
            match self.next() {
                Some(b',') => {}
                Some(_) => break,
                None => return Err("has a `{` without its `}`"),
            }
        }
        self.depth -= 1;
        Ok(Node::Choice(alternatives))
    }

    fn set(&mut self) -> Result<Set, &'static str> {
        const OPEN: &str = "has a `[` without its `]`";
        let negated = matches!(self.rest.first(), Some(b'!' | b'^'));
        if negated {
            self.next();
        }
        let mut set = Set(0);
        let mut empty = true;
        loop {
            let first = match self.next().ok_or(OPEN)? {
                b']' if empty => return Err("has an empty `[]`"),
                b']' => break,
                b'\\' => self.next().ok_or(OPEN)?,
                byte => byte,
            };
            empty = false;
            let last = match self.rest {
                [b'-', b']', ..] => first,
                [b'-', rest @ ..] => {
                    self.rest = rest;
                    match self.next().ok_or(OPEN)? {
                        b'\\' => self.next().ok_or(OPEN)?,
                        byte => byte,
                    }
                }
                _ => first,
            };
            if last < first {
                return Err("has a range in `[]` that runs backwards");
            }
            (first..=last).for_each(|byte| set.add(byte));
        }
        let chosen = if negated { !set.0 } else { set.0 };
        Ok(Set(chosen & Set::ANY.0))
    }
}

fn literal(byte: u8) -> Node {
    Node::Literal(byte.to_ascii_lowercase())
}
