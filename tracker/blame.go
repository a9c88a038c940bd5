package tracker

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// The reasons of EventBlocked.
const (
	// ReasonBusy is SQLITE_BUSY: another connection holds a lock.
	ReasonBusy Reason = "busy"
	// ReasonBusySnapshot is SQLITE_BUSY_SNAPSHOT: a transaction that has read
	// wants to write, and somebody has committed since it began to read.
	ReasonBusySnapshot Reason = "busy_snapshot"
	// ReasonLocked is SQLITE_LOCKED: another statement of the same connection,
	// or of a connection with the same shared cache, stands in the way.
	ReasonLocked Reason = "locked"
)

// Blame says who kept an operation from going on.
type Blame struct {
	// File is the path of the database file, empty for one in memory.
	File string `json:"file,omitempty"`
	// Query is the SQL text that could not go on, Stack who ran it.
	Query string `json:"query,omitempty"`
	Stack Stack  `json:"-"`
	// Trace is the span of its transaction or else of its lease, zero if none
	// was known (see SetTraceHook).
	Trace Trace `json:"trace,omitzero"`
	// Holders are the connections of this process that were in the way when
	// the error came back, the most likely one first. Empty: another process
	// holds the file, or whoever did had let go by then.
	Holders []Holder `json:"holders,omitempty"`

	reason Reason
}

// Holder is what keeps others from going on.
type Holder struct {
	// Held is the transaction, the rows or the lease that holds the lock.
	Held
	// State is what SQLite says of its transaction, TxUnknown while an
	// operation of it is running.
	State TxState `json:"state"`
	// Own says that it is the blocked connection's own: the snapshot that is
	// too old for ReasonBusySnapshot, or open rows for ReasonLocked.
	Own bool `json:"own,omitempty"`
}

// Site returns the call that could not go on.
func (b Blame) Site() Frame { return b.Stack.Site() }

// String returns the blame as one line.
func (b Blame) String() string {
	var s strings.Builder
	if b.File != "" {
		fmt.Fprintf(&s, "%s: ", b.File)
	}
	fmt.Fprintf(&s, "%s at %s", shorten(b.Query, 80), b.Site())
	if len(b.Holders) == 0 {
		s.WriteString(": " + b.nobody())
	}
	for i, h := range b.Holders {
		if i == 3 {
			fmt.Fprintf(&s, "; and %d more", len(b.Holders)-i)
			break
		}
		sep, own := ": held by ", ""
		if i > 0 {
			sep = "; "
		}
		if h.Own {
			own = "its own "
		}
		fmt.Fprintf(&s, "%s%s%s on %s (%s, open for %v) opened at %s", sep, own, h.Kind, h.ConnectionID, h.State, round(h.Age), h.Site())
		if h.Query != "" {
			fmt.Fprintf(&s, ": %s", shorten(h.Query, 60))
		}
	}
	return s.String()
}

// nobody words that no holder was found.
func (b Blame) nobody() string {
	switch {
	case b.reason == ReasonBusySnapshot:
		return "its own snapshot was too old to write"
	case b.reason == ReasonLocked || b.File == "": // nobody else can reach it
		return "whoever held it has let go since"
	}
	return "held by no connection of this process: by another process, or let go since"
}

// BlameCount says how often one place of a program was in the way.
type BlameCount struct {
	Kind Kind `json:"kind"`
	// Query is the last SQL text it held the lock with, Stack the call that
	// opened it.
	Query string `json:"query,omitempty"`
	Stack Stack  `json:"-"`
	// Count is how often it was blamed, Last when for the last time. Of
	// operations that fail within one second in one pool one is looked into.
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// Site returns the call that opened what was in the way.
func (b BlameCount) Site() Frame { return b.Stack.Site() }

const (
	// blameInterval is how often a pool looks for who is in the way.
	blameInterval = time.Second
	// maxBlamed bounds the places that are counted.
	maxBlamed = 1024
)

type blamed struct {
	stack *callstack.Stack
	kind  Kind
}

// OpenedFile records which file the connection has open. It comes before
// Register.
func (c *Conn) OpenedFile(f File) { c.file = f }

// Blocked finds and tells who kept an operation of this connection from going
// on. own says that SQLite names the connection itself: its transaction for
// ReasonBusySnapshot, otherwise its open rows. The driver calls it when the
// operation is over, outside its gate.
func (c *Conn) Blocked(reason Reason, own bool) {
	p, t := c.pool, c.pool.tracker
	p.count(func(n *counters) { n.blocked.Add(1) })
	p.tally.block(reason)
	now := t.clock.now()
	last := p.blamed.Load()
	if last != 0 && now+1-time.Duration(last) < blameInterval || !p.blamed.CompareAndSwap(last, int64(now)+1) {
		return
	}
	b := &Blame{File: c.file.Path, reason: reason}
	if p.stacks {
		b.Stack = callstack.Capture(nil).PCs()
	}
	c.lock()
	b.Query = c.query
	b.Trace = cmp.Or(c.tx.trace(), c.lease.trace())
	c.unlock()
	b.Holders = c.holders(reason, own)
	t.blame(b, now)
	t.emit(Event{Type: EventBlocked, ConnectionID: c.id, Reason: reason, Blame: b, pool: p})
}

// inTheWay is a connection that may hold a lock, and what it holds.
type inTheWay struct {
	conn  *Conn
	held  []Held
	state TxState
	raw   bool // the real connection is out: it may hold anything
}

// holders returns who may be in this connection's way, the most likely first.
func (c *Conn) holders(reason Reason, own bool) (out []Holder) {
	t := c.pool.tracker
	var all []inTheWay
	t.mu.Lock()
	now := t.now()
	for _, o := range t.conns {
		if !c.mayBlame(o, reason, own) {
			continue
		}
		if held := o.heldLocked(nil, now); len(held) > 0 {
			o.lock()
			all = append(all, inTheWay{conn: o, held: held, raw: o.raw})
			o.unlock()
		}
	}
	t.mu.Unlock()
	for i := range all {
		w := &all[i]
		w.state = w.conn.control.TxState() // only if its gate is free
		if h, ok := w.holder(reason, w.conn == c); ok {
			out = append(out, h)
		}
	}
	if slices.ContainsFunc(out, func(h Holder) bool { return h.Own }) {
		return slices.DeleteFunc(out, func(h Holder) bool { return !h.Own })
	}
	slices.SortStableFunc(out, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(b.Age, a.Age))
	})
	// Readers keep a writer out only where there is no WAL, and nobody else's
	// snapshot makes one's own too old.
	if reason == ReasonBusySnapshot || reason == ReasonBusy && len(out) > 0 && (out[0].State == TxWrite || hasWAL(c.file.Path)) {
		out = slices.DeleteFunc(out, func(h Holder) bool { return h.State == TxRead })
	}
	return out
}

// mayBlame reports whether o can be in the way of c.
func (c *Conn) mayBlame(o *Conn, reason Reason, own bool) bool {
	shared := c.file.Cache != "" && o.file.Cache == c.file.Cache
	switch {
	case o == c:
		return own
	case reason == ReasonLocked: // a lock within one cache
		return shared
	}
	return shared || o.file.Same(c.file)
}

func hasWAL(path string) bool {
	_, err := os.Stat(path + "-wal")
	return err == nil
}

// holder picks what to name of a connection: its transaction, else its rows,
// else its lease if an operation is running.
func (w *inTheWay) holder(reason Reason, own bool) (Holder, bool) {
	h := Holder{State: w.state, Own: own}
	rank := map[Kind]int{KindTransaction: 3, KindRows: 2, KindConnection: 1}
	switch {
	case own && reason == ReasonBusySnapshot:
		rank = map[Kind]int{KindTransaction: 2, KindRows: 1}
	case own:
		rank = map[Kind]int{KindRows: 1} // its own statement
	}
	best := 0
	for _, one := range w.held {
		r := rank[one.Kind]
		if r > best || r == best && r > 0 && one.Age > h.Age {
			best, h.Held = r, one
		}
	}
	if best == 0 || w.state == TxNone {
		return h, false
	}
	if w.state == TxUnknown && h.Kind == KindConnection && !h.Busy && !w.raw {
		return h, false
	}
	return h, true
}

// weight orders holders by how likely they are the reason.
func (h Holder) weight() int {
	switch h.State {
	case TxWrite:
		return 3
	case TxUnknown:
		return 2
	}
	return 1
}

// blame counts for each holder's place.
func (t *Tracker) blame(b *Blame, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range b.Holders {
		key := blamed{h.stack, h.Kind}
		n := t.blamed[key]
		if n == nil {
			if len(t.blamed) >= maxBlamed {
				continue
			}
			if t.blamed == nil {
				t.blamed = make(map[blamed]*BlameCount)
			}
			n = &BlameCount{Kind: h.Kind, Stack: h.Stack}
			t.blamed[key] = n
		}
		n.Count++
		n.Last, n.Query = t.clock.at(now), h.Query
	}
}

// Blamed returns the places of the program that kept others from going on, the
// most frequent first. At most 1024 places are counted.
func (t *Tracker) Blamed() []BlameCount {
	t.mu.Lock()
	out := make([]BlameCount, 0, len(t.blamed))
	for _, n := range t.blamed {
		out = append(out, *n)
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b BlameCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last))
	})
	return out
}
