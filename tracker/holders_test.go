package tracker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Holders are told in words that say what is known of them and no more.
func TestHolderString(t *testing.T) {
	held := func(k Kind, busy bool) Held {
		return Held{Kind: k, ConnectionID: "db#7", Age: 90 * sec, Busy: busy}
	}
	for want, h := range map[string]Holder{
		"held by rows on db#7 (read, open for 1m30s) opened at ?":                                           {Held: held(KindRows, false), State: TxRead},
		"held by transaction on db#7 (running, open for 1m30s) opened at ?":                                 {Held: held(KindTransaction, true)},
		"held by transaction on db#7 (state unknown, open for 1m30s) opened at ?":                           {Held: held(KindTransaction, false)},
		"held by transaction on db#7 (write on /b.db, open for 1m30s) opened at ?":                          {Held: held(KindTransaction, false), State: TxWrite, File: "/b.db"},
		"held by transaction on db#7 (write through ATTACH AS b at ?, open for 1m30s) opened at ?":          {Held: held(KindTransaction, false), State: TxWrite, Through: "ATTACH AS b"},
		"held by transaction on db#7 (write on /b.db through ATTACH AS b at ?, open for 1m30s) opened at ?": {Held: held(KindTransaction, false), State: TxWrite, File: "/b.db", Through: "ATTACH AS b"},
		"held by its own transaction on db#7 (write, open for 1m30s) opened at ?":                           {Held: held(KindTransaction, false), State: TxWrite, Own: true},
		"held by what was left open on the raw connection of db#7 (read), taken 1m30s ago at ?":             {Held: held(KindConnection, false), State: TxRead, Through: ThroughRaw},
		"its own raw connection may hold it: db#7, taken 1m30s ago at ?":                                    {Held: held(KindConnection, false), State: TxRead, Through: ThroughRaw, Maybe: true, Own: true},
		"a raw connection may hold it: db#7, taken 1m30s ago at ?":                                          {Held: held(KindConnection, false), Through: ThroughRaw, Maybe: true},
		"a raw connection may hold it: db#7, which no lease has taken: did a ConnectHook keep it?":          {Held: Held{ConnectionID: "db#7"}, Through: ThroughRaw, Maybe: true},
		"db#7 may still hold it: locking_mode=EXCLUSIVE, set at ?, keeps locks when a transaction is over":  {Held: held(KindConnection, false), State: TxNone, Through: ThroughLockingMode, Maybe: true},
	} {
		if got := strings.ReplaceAll(h.String(), Frame{}.String(), "?"); strings.ReplaceAll(got, "state ?", "state unknown") != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
	b := Blame{File: "/b.db", Files: []string{"/b.db", "/a.db", "/c.db"}, Query: "U", Holders: []Holder{
		{Held: held(KindRows, false), State: TxRead, Through: ThroughRaw}, {Held: held(KindRows, false), State: TxRead, Through: ThroughRaw},
	}}
	want := "/b.db (or /a.db or /c.db): U at ?: held by what was left open on the raw connection of db#7 (read), taken 1m30s ago at ?; what was left open on the raw connection of db#7 (read), taken 1m30s ago at ?"
	if got := strings.ReplaceAll(b.String(), "unknown", "?"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// Who leaves the paths out has not made the file one in memory.
	b = Blame{Query: "U", reason: ReasonBusy, onFile: true}
	if s := b.String(); !strings.Contains(s, "by another process") {
		t.Error(s)
	}
}

// The schema of the table that a text changes, if it says so itself.
func TestChanges(t *testing.T) {
	for text, want := range map[string]string{
		"INSERT INTO b.t VALUES(1)":                      "b",
		"insert or replace\n into B.t(x) values(1)":      "B",
		"REPLACE INTO \"b\".t VALUES(1)":                 "b",
		"UPDATE [b].t SET x = 1":                         "b",
		"UPDATE OR IGNORE `b`.t SET x = 1":               "b",
		"DELETE FROM 'b'.t":                              "b",
		"DELETE FROM main.t WHERE a IN (SELECT b.c)":     "main",
		"INSERT INTO t SELECT * FROM b.t":                "",
		"INSERT INTO t(x) VALUES(b.c)":                   "",
		"INSERT INTO t(a.b":                              "",
		"UPDATE t SET x = b.c":                           "",
		"SELECT * FROM b.t":                              "",
		"WITH x AS (SELECT 1) INSERT INTO b.t VALUES(1)": "",
		"/* INSERT */ INSERT INTO b.t VALUES(1)":         "",
		"INSERT":                                         "",
		"INSERT INTO":                                    "",
		"UPDATE OR":                                      "",
		"COMMIT":                                         "",
		"":                                               "",
	} {
		if got := changes(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// several is a fake with databases of its own, each in a state.
type several struct {
	*fake
	states map[string]TxState
}

func (s *several) CacheSize() (int64, bool) { return 0, true }

func (s *several) TxStateOf(schema string) TxState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inside || s.shut {
		return TxUnknown
	}
	return s.states[schema]
}

// with makes a fake one of those that has files attached.
func (f *fake) with(states map[string]TxState, attached ...Attached) *several {
	s := &several{f, states}
	synctest.Wait() // a look that is under way reads it
	f.l.Tracker.mu.Lock()
	f.control = s
	f.l.Tracker.mu.Unlock()
	f.do(func() { f.Attached(attached) })
	return s
}

// holdersOf is blames with how each comes to hold the file, and the files in question.
func (l *lab) holdersOf() string {
	l.told()
	for _, e := range slices.Backward(l.History()) {
		if e.Type != EventBlocked {
			continue
		}
		words := []string{strings.Join(append([]string{e.Blame.File}, e.Blame.Files...), ",")}
		for _, h := range e.Blame.Holders {
			w := h.ConnectionID + ":" + h.Kind.String() + ":" + h.State.String() + ":" + h.Through
			if h.Maybe {
				w += ":maybe"
			}
			words = append(words, w)
		}
		return strings.Join(words, " ")
	}
	return "nothing told"
}

func TestHoldersThroughAttach(t *testing.T) {
	a, b, c := File{Path: "/a.db"}, File{Path: "/b.db"}, File{Path: "/c.db"}
	asB := Attached{"b", b}
	for name, test := range map[string]struct {
		want string
		set  func(l *lab, p *Pool, me *fake)
	}{
		"attached by the holder": {"/a.db db#2:transaction:write:ATTACH AS x", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, b)
			f.begin("BEGIN", "")
			f.with(map[string]TxState{"main": TxNone, "x": TxWrite}, Attached{"x", a})
		}},
		"other schema": {"/a.db", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, b)
			f.begin("BEGIN", "")
			f.with(map[string]TxState{"main": TxWrite, "x": TxNone}, Attached{"x", a})
		}},
		"detached": {"/a.db", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, b)
			f.begin("BEGIN", "")
			f.with(map[string]TxState{"main": TxWrite, "x": TxWrite}, Attached{"x", a}).Attached(nil)
		}},
		"attached by both": {"/c.db,/c.db,/b.db,/a.db db#2:transaction:write:ATTACH AS y", func(l *lab, p *Pool, me *fake) {
			me.with(nil, asB, Attached{"c", c})
			f := l.on(p, File{Path: "/d.db"})
			f.begin("BEGIN", "")
			f.with(map[string]TxState{"y": TxWrite, "z": TxNone}, Attached{"y", c}, Attached{"z", b})
		}},
		"two at once": {"/b.db,/b.db,/a.db db#3:transaction:write: db#2:transaction:unknown:", func(l *lab, p *Pool, me *fake) {
			me.with(nil, asB)
			busy := l.on(p, a)
			busy.begin("BEGIN", "")
			busy.enter()
			l.on(p, b).lock(TxWrite).begin("BEGIN", "")
		}},
		"out, of another file": {"/a.db db#2:connection:unknown:the raw connection:maybe", func(l *lab, p *Pool, me *fake) {
			l.on(p, b).HandedOut()
		}},
		"out, and somebody who writes": {"/a.db db#3:transaction:write:", func(l *lab, p *Pool, me *fake) {
			l.on(p, b).HandedOut()
			l.on(p, a).lock(TxWrite).begin("BEGIN", "")
			l.on(p, a).HandedOut()
		}},
		"out, and somebody who runs": {"/a.db db#3:transaction:unknown: db#2:connection:unknown:the raw connection:maybe", func(l *lab, p *Pool, me *fake) {
			l.on(p, a).HandedOut()
			busy := l.on(p, a)
			busy.begin("BEGIN", "")
			busy.enter()
		}},
		"out, of another file, and somebody who runs": {"/a.db db#3:transaction:unknown:", func(l *lab, p *Pool, me *fake) {
			l.on(p, b).HandedOut()
			busy := l.on(p, a)
			busy.begin("BEGIN", "")
			busy.enter()
		}},
		"left, and a lease that runs": {"/a.db db#2:connection:unknown: db#2:connection:unknown:the raw connection:maybe", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a)
			f.HandedOut()
			f.do(func() { f.TakenBack(TxRead, "SELECT") })
			f.in()
			f.out("")
			f.enter()
		}},
		"left, and a lease at rest": {"/a.db db#2:connection:unknown:the raw connection:maybe", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a)
			f.HandedOut()
			f.do(func() { f.TakenBack(TxRead, "SELECT") })
			f.in()
			f.out("")
			f.shutGate(true)
		}},
		"left": {"/a.db db#2:connection:write:the raw connection", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a).lock(TxWrite)
			f.HandedOut()
			f.do(func() { f.TakenBack(TxRead, "SELECT") })
			f.in()
			f.out("")
		}},
		"left and gone": {"/a.db", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a).lock(TxNone)
			f.HandedOut()
			f.do(func() { f.TakenBack(TxRead, "SELECT") })
			f.in()
		}},
		"taken back, and inside by itself": {"/a.db db#2:connection:unknown:the raw connection:maybe", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a)
			f.HandedOut()
			f.do(func() { f.TakenBack(TxNone, "") })
			f.in()
			l.sleep(sec)
			f.shutGate(true)
		}},
		"never raw": {"/a.db", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a)
			f.in()
			f.shutGate(true)
		}},
		"nobody's": {"/a.db db#2:connection:write:the raw connection", func(l *lab, p *Pool, me *fake) {
			l.on(p, a).lock(TxWrite).in()
		}},
		"keeps its locks": {"/a.db db#2:connection:none:locking_mode=EXCLUSIVE:maybe", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a).lock(TxNone)
			f.do(func() { f.KeepsLocks(true) })
			f.in()
		}},
		"keeps them no longer": {"/a.db", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, a).lock(TxNone)
			f.do(func() { f.KeepsLocks(true); f.KeepsLocks(false) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Observe, limits(nil))
				me := l.on(p, a)
				test.set(l, p, me)
				me.do(func() { me.Executing("UPDATE t") })
				me.Blocked(ReasonBusy, false)
				if got := l.holdersOf(); got != test.want {
					t.Errorf("%q, want %q", got, test.want)
				}
				for _, f := range l.fakes {
					f.shutGate(false)
					if f.Word().Load()&gate.Busy != 0 {
						f.leave()
					}
				}
			})
		})
	}
}

// What is left once is left until it is told to be over; then that of a later lease
// is another.
func TestTakenBack(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(nil))
		f := l.on(p, File{Path: "/a.db"}).lock(TxRead)
		lease := func(state TxState, text string) Held {
			f.do(func() { f.HandedOut(); f.TakenBack(state, text) })
			f.in()
			l.sleep(sec)
			f.out("")
			l.Tracker.mu.Lock()
			defer l.Tracker.mu.Unlock()
			return f.leftLocked(l.now())
		}
		first := lease(TxRead, "one")
		if first.Resource == 0 || first.Query != "one" || first.Age != sec || first.Kind != KindConnection {
			t.Errorf("%+v", first)
		}
		if h := lease(TxRead, "two"); h.Resource != first.Resource || h.Query != "one" || h.Age != 2*sec {
			t.Errorf("%+v", h)
		}
		if h := lease(TxUnknown, ""); h.Resource != first.Resource || h.Query != "one" || h.Age != 3*sec {
			t.Errorf("%+v", h)
		}
		if h := lease(TxNone, ""); h.Resource != 0 || h.Query != "" || h.Age != sec {
			t.Errorf("%+v", h)
		}
		if h := lease(TxUnknown, ""); h.Resource != 0 || h.Query != "" || h.Age != sec {
			t.Errorf("%+v", h)
		}
		if h := lease(TxWrite, "three"); h.Resource == 0 || h.Resource == first.Resource || h.Query != "three" {
			t.Errorf("%+v", h)
		}
	})
}

// expectLeaks compares what was told of leaks, as type, kind and reason.
func (l *lab) expectLeaks(want ...string) {
	l.t.Helper()
	synctest.Wait()
	var got []string
	for _, e := range l.LeakHistory() {
		got = append(got, fmt.Sprint(e.Type, " ", e.Leak.Kind, " ", e.Leak.Reason))
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("told %q, want %q", got, want)
	}
}

// What was left in an attached database is over when that is detached, or the connection
// closed.
func TestLeftUntilDetached(t *testing.T) {
	for _, closed := range []bool{false, true} {
		file := File{Path: filepath.Join(t.TempDir(), "b.db")}
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, limits(walLimit))
			f := l.on(p, File{Path: filepath.Join(t.TempDir(), "a.db")})
			s := f.with(map[string]TxState{"main": TxNone, "b": TxRead}, Attached{"b", file})
			f.do(func() { f.HandedOut(); f.TakenBack(TxRead, "SELECT") })
			f.in()
			wal(t, file, 1001)
			l.sleep(mins)
			l.expectLeaks("suspect connection wal_limit")
			if r := l.Records()[0]; !r.Suspect || r.Leased {
				t.Errorf("%+v", r)
			}
			if closed {
				f.Close()
			} else {
				f.out("")
				f.do(func() { s.Attached(nil) })
				f.in()
			}
			l.expectLeaks("suspect connection wal_limit", "recovered connection wal_limit")
		})
	}
}

// What was left is over when SQLite says so, also beside somebody who holds the log for
// longer.
func TestLeftEndsBesideAnOlderReader(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db")}
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(walLimit))
		older, f := l.on(p, file).lock(TxNone), l.on(p, file).lock(TxRead)
		older.begin("BEGIN", "")
		l.sleep(sec)
		f.do(func() { f.HandedOut(); f.TakenBack(TxRead, "SELECT") })
		f.in()
		wal(t, file, 1001)
		l.sleep(mins)
		l.expectLeaks("suspect connection wal_limit")
		older.lock(TxRead)
		f.lock(TxNone)
		l.sleep(mins)
		l.expectLeaks("suspect connection wal_limit", "recovered connection wal_limit", "suspect transaction wal_limit")
	})
}

// sudden is a fake whose owner comes just before SQLite is asked for its state.
type sudden struct {
	*several
	comes atomic.Bool
	rows  atomic.Pointer[Resource] // what it opens
}

func (s *sudden) TxStateOf(schema string) TxState {
	if s.comes.Swap(false) {
		s.out("")
		s.rows.Store(s.query("SELECT", ""))
	}
	return s.several.TxStateOf(schema)
}

// A connection at rest that is taken, and used, between two looks at it is not known to
// hold what was left.
func TestLeftBesideACheckOut(t *testing.T) {
	for _, raw := range []TxState{TxNone, TxRead} {
		file := File{Path: filepath.Join(t.TempDir(), "a.db")} // whose WAL is small at first
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, limits(walLimit))
			me, f := l.on(p, file), l.on(p, file)
			f.do(func() { f.HandedOut(); f.TakenBack(raw, "") })
			f.in()
			s := &sudden{several: f.with(map[string]TxState{"main": TxWrite})}
			synctest.Wait()
			l.Tracker.mu.Lock()
			f.control = s
			l.Tracker.mu.Unlock()
			s.comes.Store(true)
			me.Blocked(ReasonBusy, false)
			want := file.Path
			if raw == TxRead { // which may still be there
				want += " db#2:connection:write:the raw connection:maybe"
			}
			if got := l.holdersOf(); got != want {
				t.Errorf("left %v: %q", raw, got)
			}
			f.finish(s.rows.Load())
			f.in()
			wal(t, file, 1001)
			s.comes.Store(true)
			l.sleep(mins)
			for _, e := range l.LeakHistory() {
				if e.Leak.Kind != KindRows { // which the next look finds
					t.Errorf("left %v: %v", raw, e.Leak)
				}
			}
			f.finish(s.rows.Load())
		})
	}
}
