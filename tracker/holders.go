package tracker

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"unicode"
)

// Who is in the way of an operation that failed. SQLite says neither which of its
// connection's files it was about nor who has it, so both are found out by what the
// connections of the process have open, and what SQLite says of each of them.

// inQuestion returns the databases of the connection that the operation may have
// been about.
func (c *Conn) inQuestion(reason Reason, query string) []openFile {
	t := c.pool.tracker
	t.mu.Lock()
	all := c.filesLocked()
	t.mu.Unlock()
	if len(all) == 1 {
		return all
	}
	left := func(keep func(f openFile) bool) {
		some := slices.DeleteFunc(slices.Clone(all), func(f openFile) bool { return !keep(f) })
		if len(some) > 0 {
			all = some
		}
	}
	if schema := changes(query); schema != "" {
		// With a WAL nobody keeps a reader out.
		reads := readsToo(query)
		left(func(f openFile) bool {
			return strings.EqualFold(f.Schema, schema) || reads && !hasWAL(f.File.Path)
		})
	}
	if len(all) == 1 {
		return all
	}
	switch reason {
	case ReasonBusy: // who writes has the lock, and with a WAL needs no other
		left(func(f openFile) bool { return !hasWAL(f.File.Path) || c.txState(f.Schema) != TxWrite })
	case ReasonBusySnapshot: // who has no snapshot has none that is too old
		left(func(f openFile) bool { return c.txState(f.Schema) == TxRead })
	}
	return all
}

// changes returns the schema of the table that an INSERT, UPDATE, DELETE or REPLACE
// changes, if the text begins with that and names one, as in "INSERT INTO b.t".
func changes(query string) string {
	words := strings.Fields(query[:min(len(query), 200)])
	next := func(word string) bool {
		if len(words) > 0 && strings.EqualFold(words[0], word) {
			words = words[1:]
			return true
		}
		return false
	}
	or := func() bool { // a conflict clause
		if next("OR") && len(words) > 0 {
			words = words[1:]
		}
		return true
	}
	if !(next("INSERT") && or() && next("INTO") || next("REPLACE") && next("INTO") || next("DELETE") && next("FROM") || next("UPDATE") && or()) || len(words) == 0 {
		return ""
	}
	schema, _, qualified := strings.Cut(words[0], ".")
	if !qualified || strings.ContainsAny(schema, "(,;") {
		return ""
	}
	if n := len(schema); n > 2 && strings.ContainsRune("\"`'[", rune(schema[0])) {
		schema = schema[1 : n-1]
	}
	return schema
}

// readsToo reports whether a text that changes a table may read another one.
func readsToo(query string) bool {
	words := strings.FieldsFunc(strings.ToUpper(query), func(r rune) bool { return !unicode.IsLetter(r) })
	for i, w := range words {
		if w == "SELECT" || w == "IN" || w == "FROM" && i > 0 && words[i-1] != "DELETE" {
			return true
		}
	}
	return false
}

// inTheWay is a connection that may hold a lock, and what it holds.
type inTheWay struct {
	conn    *Conn
	file    openFile // as it has it
	path    string   // as the blocked connection has it
	own     bool     // it is the blocked one, by SQLite's own words
	twice   bool     // it is, and has one file under two names
	held    []Held
	left    Held // see more.left
	raw     bool // the real connection is out: it may hold anything
	keeps   *keeps
	unknown bool // it is not known to have the file: it may have attached it
	word    uint64
	moved   bool // between the looks at what it holds and at its state
	state   TxState
}

// holders returns who may be in this connection's way, the most likely first.
func (c *Conn) holders(files []openFile, reason Reason, own bool) (out []Holder) {
	t := c.pool.tracker
	var all []inTheWay
	t.mu.Lock()
	now := t.now()
	for _, o := range t.conns {
		var ways []inTheWay
		if o == c && own {
			ways = append(ways, inTheWay{file: files[0], own: true}) // in which of them, SQLite does not say
		} else {
			for _, mine := range files {
				for _, theirs := range o.filesLocked() {
					if c.mayBlame(o, mine, theirs, reason) {
						ways = append(ways, inTheWay{file: theirs, path: mine.File.Path, twice: o == c})
					}
				}
			}
		}
		o.lock()
		raw := o.raw
		o.unlock()
		if len(ways) == 0 && raw && o != c && reason == ReasonBusy {
			ways = []inTheWay{{unknown: true}}
		}
		if len(ways) == 0 {
			continue
		}
		word := o.generation()
		held, left := o.heldLocked(nil, now), o.leftLocked(now)
		for _, w := range ways {
			w.conn, w.word, w.held, w.left, w.raw = o, word, held, left, raw
			if o.more != nil {
				w.keeps = o.more.keeps
			}
			all = append(all, w)
		}
	}
	t.mu.Unlock()
	wal := make(map[string]bool)
	for i := range all {
		w := &all[i]
		switch {
		case w.raw:
		case w.own: // its temp database counts, too
			w.state = w.conn.txState()
		default: // only if its gate is free
			w.state = w.conn.txState(w.file.Schema)
		}
		w.moved = w.conn.generation() != w.word
		if _, asked := wal[w.path]; !asked {
			wal[w.path] = hasWAL(w.path)
		}
		out = append(out, w.holders(reason)...)
	}
	if len(out) == 0 {
		return nil
	}
	if slices.ContainsFunc(out, func(h Holder) bool { return h.Own }) {
		return slices.DeleteFunc(out, func(h Holder) bool { return !h.Own })
	}
	slices.SortStableFunc(out, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.weight(), a.weight()), cmp.Compare(b.Age, a.Age))
	})
	// Readers keep a writer out only where there is no WAL, and nobody else's
	// snapshot makes one's own too old.
	if reason != ReasonLocked {
		writer := out[0].State == TxWrite
		out = slices.DeleteFunc(out, func(h Holder) bool {
			return h.State == TxRead && (writer || reason == ReasonBusySnapshot || wal[h.File])
		})
	}
	// Who may hold it counts where nobody is known to, or only somebody beside it. An
	// operation that is running may be innocent.
	does, sure := make(map[string]bool), false
	for _, h := range out {
		if !h.Maybe {
			does[h.ConnectionID] = true
			sure = sure || h.State != TxUnknown
		}
	}
	if len(does) > 0 {
		out = slices.DeleteFunc(out, func(h Holder) bool {
			return h.Maybe && !does[h.ConnectionID] && (sure || h.guess)
		})
	}
	return out
}

// mayBlame reports whether o, by what it has open, can be in the way of c.
func (c *Conn) mayBlame(o *Conn, mine, theirs openFile, reason Reason) bool {
	if o == c { // one file under two names: a connection in its own way
		return mine.Schema != theirs.Schema && mine.File.Same(theirs.File)
	}
	shared := mine.File.Cache != "" && theirs.File.Cache == mine.File.Cache
	if reason == ReasonLocked { // a lock within one cache, which "?cache=shared" makes for one that is attached
		attached := mine.Schema != mainSchema || theirs.Schema != mainSchema
		return shared || attached && theirs.File.Same(mine.File)
	}
	return shared || theirs.File.Same(mine.File)
}

func hasWAL(path string) bool {
	if path == "" {
		return false
	}
	_, err := os.Stat(path + "-wal")
	return err == nil
}

// holders names what a connection holds: its transaction, else its rows, else its
// lease if an operation is running, and what a real connection left open.
func (w *inTheWay) holders(reason Reason) (out []Holder) {
	named := func(held Held) Holder {
		h := Holder{Held: held, State: w.state, Own: w.own || w.twice, File: w.path, Attached: w.file.at.PCs()}
		if w.file.Schema != mainSchema && !w.unknown {
			h.Through = "ATTACH AS " + w.file.Schema
		}
		return h
	}
	raw := func(held Held, maybe bool) Holder {
		h := named(held)
		h.Through, h.Maybe, h.guess = ThroughRaw, maybe, w.unknown
		return h
	}
	rank := map[Kind]int{KindTransaction: 3, KindRows: 2, KindConnection: 1}
	switch {
	case w.own && reason == ReasonBusySnapshot:
		rank = map[Kind]int{KindTransaction: 2, KindRows: 1}
	case w.own:
		rank = map[Kind]int{KindRows: 1} // its own statement
	}
	var most Held
	best := 0
	var lease Held
	for _, one := range w.held {
		if one.Kind == KindConnection {
			if lease = one; w.raw {
				lease.Query = "" // what runs there is not known
			}
		}
		if r := rank[one.Kind]; r > best || r == best && r > 0 && one.Age > most.Age {
			best, most = r, one
		}
	}
	known := best > 0 && most.Kind != KindConnection
	holds := w.state == TxRead || w.state == TxWrite
	switch {
	case w.unknown:
		return []Holder{raw(lease, true)}
	case w.state == TxNone:
		if by := w.keepsLock(); by != nil && !w.own && !w.twice {
			h := named(Held{Kind: KindConnection, Pool: w.conn.pool.name, ConnectionID: w.conn.id, Stack: by.at.PCs(), stack: by.at})
			h.Through, h.Maybe = ThroughLockingMode, true
			return []Holder{h}
		}
		return nil
	case known:
		out = append(out, named(most))
	case w.raw:
		if lease.Resource != 0 {
			out = append(out, raw(lease, true))
		}
	case w.moved && lease.Resource == 0: // its state may be that of a lease that has begun since
	case holds && (w.left.Resource != 0 || lease.Resource == 0): // not whoever has the lease now
		return []Holder{raw(w.left, w.own)}
	case w.state == TxUnknown && lease.Resource == 0 && w.left.Age > 0: // the program may be inside it
		return []Holder{raw(w.left, true)}
	case holds && best > 0, w.state == TxUnknown && best > 0 && most.Busy:
		out = append(out, named(most))
	}
	if w.left.Resource != 0 && !w.own { // SQLite does not say whose it is
		out = append(out, raw(w.left, true))
	}
	return out
}

// weight orders holders by how likely they are the reason.
func (h Holder) weight() int {
	n := 0
	switch h.State {
	case TxWrite:
		n = 3
	case TxUnknown:
		n = 2
	case TxRead:
		n = 1
	}
	if h.Maybe {
		n -= 10
	}
	return n
}
