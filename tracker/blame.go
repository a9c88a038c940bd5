package tracker

import (
	"cmp"
	"fmt"
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
	// File is the path of the database file in question, empty for one in memory.
	// If the connection has several open and it is not known which of them it was,
	// it is the likeliest, and Files lists all that it may have been, with File
	// first. Else Files is empty.
	File  string   `json:"file,omitempty"`
	Files []string `json:"files,omitempty"`
	// Query is the SQL text that could not go on, as the pool's SQLText tells it,
	// Stack who ran it.
	Query string `json:"query,omitempty"`
	Stack Stack  `json:"-"`
	// Trace is the span of its transaction or else of its lease, zero if none
	// was known (see SetTraceHook).
	Trace Trace `json:"trace,omitzero"`
	// Holders are the connections of this process that were in the way when
	// the error came back, the most likely one first. Empty: another process or a
	// connection that is not guarded holds the file, or whoever did had let go by
	// then.
	Holders []Holder `json:"holders,omitempty"`

	reason Reason
	onFile bool // which a copy without File does not tell
}

// Holder is what keeps others from going on.
type Holder struct {
	// Held is the transaction, the rows or the lease that holds the lock. For
	// ThroughRaw it is the lease that had the real connection, which may be over;
	// for ThroughLockingMode who set that.
	Held
	// State is what SQLite says of its transaction in the file, TxUnknown while an
	// operation of it is running or the real connection is out.
	State TxState `json:"state"`
	// Own says that it is the blocked connection's own: the snapshot that is
	// too old for ReasonBusySnapshot, or open rows for ReasonLocked.
	Own bool `json:"own,omitempty"`
	// File is the path of the file that it has, if Blame.Files has several.
	File string `json:"file,omitempty"`
	// Through is how it comes to hold the file if that is neither by a transaction
	// nor by rows that were opened through the guard, on the database it was opened
	// with: "ATTACH AS name", ThroughRaw or ThroughLockingMode.
	Through string `json:"through,omitempty"`
	// Maybe says that it is not known to hold anything: the guard does not see
	// what it holds, and nobody else was found, or only somebody on the same
	// connection.
	Maybe bool `json:"maybe,omitempty"`
	// Attached is the call stack of the ATTACH, empty if the file is the one that
	// the connection was opened with.
	Attached Stack `json:"-"`

	guess bool // not even the file is known to be the same: not counted
}

const (
	// ThroughRaw is a Holder.Through: by what the program runs, or left open, on
	// the real connection, past the guard.
	ThroughRaw = "the raw connection"
	// ThroughLockingMode is a Holder.Through: PRAGMA locking_mode=EXCLUSIVE keeps
	// locks when their transaction is over.
	ThroughLockingMode = "locking_mode=EXCLUSIVE"
)

// Site returns the call that could not go on.
func (b Blame) Site() Frame { return b.Stack.Site() }

// AttachedAt returns the call that attached the file, the zero Frame if it is the
// one that the connection was opened with.
func (h Holder) AttachedAt() Frame { return h.Attached.Site() }

// String returns the blame as one line.
func (b Blame) String() string {
	var s strings.Builder
	if b.File != "" {
		s.WriteString(b.File)
		if len(b.Files) > 1 {
			fmt.Fprintf(&s, " (or %s)", strings.Join(b.Files[1:], " or "))
		}
		s.WriteString(": ")
	}
	fmt.Fprintf(&s, "%s at %s: ", cmp.Or(shorten(b.Query, 80), "an operation"), b.Stack.at())
	if len(b.Holders) == 0 {
		s.WriteString(b.nobody())
	}
	for i, h := range b.Holders {
		if i == 3 {
			fmt.Fprintf(&s, "; and %d more", len(b.Holders)-i)
			break
		}
		text := h.String()
		if i > 0 {
			text = "; " + strings.TrimPrefix(text, "held by ")
		}
		s.WriteString(text)
	}
	return s.String()
}

// String returns what holds the lock, how, since when and who opened it:
//
//	held by transaction on a#2 (write, open for 3s) opened at shop/order.go:88: INSERT INTO …
func (h Holder) String() string {
	var s strings.Builder
	how := h.state()
	if h.File != "" {
		how += " on " + h.File
	}
	switch h.Through {
	case "", ThroughRaw, ThroughLockingMode:
	default:
		how += " through " + h.Through + " at " + h.AttachedAt().String()
	}
	own := ""
	if h.Own {
		own = "its own "
	}
	switch {
	case h.Through == ThroughLockingMode:
		fmt.Fprintf(&s, "%s may still hold it: %s, set at %s, keeps locks when a transaction is over", h.ConnectionID, h.Through, h.Stack.at())
	case h.Through == ThroughRaw:
		if h.Maybe {
			fmt.Fprintf(&s, "%sraw connection may hold it: %s", cmp.Or(own, "a "), h.ConnectionID)
		} else {
			fmt.Fprintf(&s, "held by what was left open on the raw connection of %s (%s)", h.ConnectionID, how)
		}
		if h.Age > 0 {
			fmt.Fprintf(&s, ", taken %v ago at %s", AgeText(h.Age, h.AgeAtLeast), h.Stack.at())
		} else {
			s.WriteString(", which no lease has taken: did a ConnectHook keep it?")
		}
	default:
		fmt.Fprintf(&s, "held by %s%s on %s (%s, open for %v) opened at %s", own, h.Kind, h.ConnectionID, how, AgeText(h.Age, h.AgeAtLeast), h.Stack.at())
	}
	if h.Query != "" {
		fmt.Fprintf(&s, ": %s", shorten(h.Query, 60))
	}
	return s.String()
}

// state words the state of the transaction.
func (h Holder) state() string {
	switch {
	case h.State != TxUnknown:
		return h.State.String()
	case h.Busy:
		return "running"
	}
	return "state unknown"
}

// nobody words that no holder was found.
func (b Blame) nobody() string {
	switch {
	case b.reason == ReasonBusySnapshot:
		return "its own snapshot was too old to write"
	case b.reason == ReasonLocked || b.File == "" && !b.onFile: // nobody else can reach it
		return "whoever held it has let go since"
	}
	return "held by no guarded connection of this process: by an unguarded one, by another process, or let go since"
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
	b := &Blame{reason: reason}
	if p.stacks {
		b.Stack = callstack.Capture(nil).PCs()
	}
	c.lock()
	query := c.query
	b.Trace = cmp.Or(c.tx.trace(), c.lease.trace())
	c.unlock()
	b.Query = c.told(query)
	files := c.inQuestion(reason, query)
	b.Holders = c.holders(files, reason, own)
	b.name(files)
	t.blame(b, now)
	t.emit(Event{Type: EventBlocked, ConnectionID: c.id, Reason: reason, Blame: b, pool: p})
}

// name says which file it was, as far as that is known.
func (b *Blame) name(files []openFile) {
	var paths []string
	for _, f := range files {
		if f.File.Path != "" && !slices.Contains(paths, f.File.Path) {
			paths = append(paths, f.File.Path)
		}
	}
	if len(paths) == 0 {
		return
	}
	b.onFile = true
	if len(paths) == 1 {
		b.File = paths[0]
		for i := range b.Holders {
			b.Holders[i].File = ""
		}
		return
	}
	if len(b.Holders) > 0 && b.Holders[0].File != "" {
		likeliest := slices.Index(paths, b.Holders[0].File)
		paths[0], paths[likeliest] = paths[likeliest], paths[0]
	}
	b.File, b.Files = paths[0], paths
}

// blame counts for each holder's place.
func (t *Tracker) blame(b *Blame, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range b.Holders {
		if h.guess {
			continue
		}
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
