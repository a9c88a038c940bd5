package tracker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// on opens a leased connection of a file.
func (l *lab) on(p *Pool, file File) *fake {
	f := &fake{l: l}
	c := p.New(false, "")
	c.OpenedFile(file)
	f.mu.Lock() // the reaper may come before Register is back
	f.Conn = c
	c.Register(f)
	f.mu.Unlock()
	l.fakes = append(l.fakes, f)
	f.out("")
	return f
}

// lock says what SQLite would say of the fake's transaction.
func (f *fake) lock(s TxState) *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	return f
}

// blames returns what the last event says, one holder a word.
func (l *lab) blames() string {
	l.told()
	h := l.History()
	for _, e := range slices.Backward(h) {
		if e.Type == EventBlocked {
			var words []string
			for _, h := range e.Blame.Holders {
				w := fmt.Sprintf("%s:%v:%v", h.ConnectionID, h.Kind, h.State)
				if h.Own {
					w += ":own"
				}
				words = append(words, w)
			}
			return strings.Join(words, " ")
		}
	}
	return "nothing told"
}

func TestBlameChoosesHolders(t *testing.T) {
	file := File{Path: "/a.db", Device: 1, Inode: 2}
	for _, c := range []struct {
		name   string
		reason Reason
		own    bool
		want   string
		set    func(l *lab, p *Pool, me *fake)
	}{
		{"by a lease alone", ReasonBusy, false, "db#2:connection:write", func(l *lab, p *Pool, me *fake) { l.on(p, file).lock(TxWrite) }},
		{"another file", ReasonBusy, false, "", func(l *lab, p *Pool, me *fake) {
			l.on(p, File{Path: "/a.db", Device: 2, Inode: 2}).lock(TxWrite).begin("BEGIN", "")
			l.on(p, File{Path: "/b.db"}).lock(TxWrite).begin("BEGIN", "")
			l.on(p, File{}).lock(TxWrite).begin("BEGIN", "")
		}},
		{"another path", ReasonBusy, false, "db#2:transaction:write", func(l *lab, p *Pool, me *fake) {
			l.on(p, File{Path: "/b.db", Device: 1, Inode: 2}).lock(TxWrite).begin("BEGIN", "")
		}},
		{"without inode", ReasonBusy, false, "db#2:transaction:write", func(l *lab, p *Pool, me *fake) {
			l.on(p, File{Path: "/a.db"}).lock(TxWrite).begin("BEGIN", "")
		}},
		{"itself", ReasonBusy, false, "", func(l *lab, p *Pool, me *fake) {
			me.lock(TxWrite).begin("BEGIN", "")
			me.query("SELECT", "")
		}},
		{"no lock", ReasonBusy, false, "", func(l *lab, p *Pool, me *fake) { l.on(p, file).lock(TxNone).begin("BEGIN", "") }},
		{"the oldest writer first", ReasonBusy, false, "db#4:transaction:write db#3:transaction:unknown db#2:transaction:unknown", func(l *lab, p *Pool, me *fake) {
			a, b, c := l.on(p, file), l.on(p, file), l.on(p, file)
			for _, f := range []*fake{b, a, c} {
				f.begin("BEGIN", "")
				l.sleep(sec)
			}
			a.enter()
			b.shutGate(true)
			c.lock(TxWrite)
			l.on(p, file).lock(TxRead).begin("BEGIN", "")
		}},
		{"readers without WAL", ReasonBusy, false, "db#3:rows:read db#2:transaction:read", func(l *lab, p *Pool, me *fake) {
			a, b := l.on(p, file), l.on(p, file)
			b.lock(TxRead).query("SELECT", "")
			l.sleep(sec)
			a.lock(TxRead).begin("BEGIN", "")
			a.query("SELECT", "")
		}},
		{"a lease inside SQLite", ReasonBusy, false, "db#2:connection:unknown", func(l *lab, p *Pool, me *fake) {
			l.on(p, file).enter()
			l.on(p, file).shutGate(true) // at rest, and somebody looks at it
		}},
		{"a raw lease", ReasonBusy, false, "db#2:connection:unknown", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, file).lock(TxUnknown)
			f.HandedOut()
		}},
		{"back in the pool", ReasonBusy, false, "db#2:transaction:write", func(l *lab, p *Pool, me *fake) {
			f := l.on(p, file).lock(TxWrite)
			f.begin("BEGIN", "")
			f.in()
		}},
		{"snapshot", ReasonBusySnapshot, true, "db#1:transaction:read:own", func(l *lab, p *Pool, me *fake) {
			me.lock(TxRead).begin("BEGIN", "")
			me.query("SELECT", "")
			l.on(p, file).lock(TxRead).begin("BEGIN", "")
			l.on(p, file).lock(TxWrite).begin("BEGIN", "")
		}},
		{"snapshot of nobody", ReasonBusySnapshot, true, "db#3:transaction:write", func(l *lab, p *Pool, me *fake) {
			l.on(p, file).lock(TxRead).begin("BEGIN", "")
			l.on(p, file).lock(TxWrite).begin("BEGIN", "")
		}},
		{"snapshot, alone", ReasonBusySnapshot, false, "", func(l *lab, p *Pool, me *fake) {}},
		{"own rows", ReasonLocked, true, "db#1:rows:read:own", func(l *lab, p *Pool, me *fake) {
			me.lock(TxRead).begin("BEGIN", "")
			me.query("SELECT", "")
			l.on(p, file).lock(TxWrite).begin("BEGIN", "")
		}},
		{"no rows", ReasonLocked, true, "", func(l *lab, p *Pool, me *fake) {
			me.lock(TxRead).begin("BEGIN", "")
			l.on(p, file).lock(TxWrite).begin("BEGIN", "")
		}},
		{"shared cache", ReasonLocked, false, "db#3:rows:read", func(l *lab, p *Pool, me *fake) {
			me.OpenedFile(File{Cache: "x"})
			me.lock(TxRead).query("SELECT", "")
			l.on(p, File{Cache: "y"}).lock(TxWrite).begin("BEGIN", "")
			l.on(p, File{Cache: "x"}).lock(TxRead).query("SELECT", "")
		}},
		{"busy own statements", ReasonBusy, true, "db#1:rows:write:own", func(l *lab, p *Pool, me *fake) {
			me.lock(TxWrite).begin("BEGIN", "")
			me.query("INSERT", "")
			l.on(p, file).lock(TxRead).begin("BEGIN", "")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Observe, limits(nil))
				me := l.on(p, file)
				c.set(l, p, me)
				me.do(func() { me.Executing("UPDATE t") })
				me.Blocked(c.reason, c.own)
				if got := l.blames(); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
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

// With a WAL beside it, readers are in nobody's way, and without a writer
// nobody is named.
func TestBlameReadersWithWAL(t *testing.T) {
	dir := t.TempDir()
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(nil))
		file := File{Path: filepath.Join(dir, "a.db")}
		me := l.on(p, file)
		l.on(p, file).lock(TxRead).begin("BEGIN", "")
		me.Blocked(ReasonBusy, false)
		if got := l.blames(); got != "db#2:transaction:read" {
			t.Error(got)
		}
		l.sleep(sec)
		if err := os.WriteFile(file.Path+"-wal", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		me.Blocked(ReasonBusy, false)
		if got := l.blames(); got != "" {
			t.Error(got)
		}
	})
}

func TestBlameString(t *testing.T) {
	hold := func(own bool, s TxState) Holder {
		return Holder{Held: Held{Kind: KindTransaction, ConnectionID: "db#7", Age: 90 * sec, Query: "INSERT\n INTO t"}, State: s, Own: own}
	}
	for want, b := range map[string]Blame{
		"/a.db: UPDATE t at ?: held by no guarded connection of this process: by an unguarded one, by another process, or let go since": {File: "/a.db", Query: "UPDATE t"},
		"UPDATE t at ?: whoever held it has let go since":                                               {Query: "UPDATE t", reason: ReasonBusy},
		"/a.db: UPDATE t at ?: whoever held it has let go since":                                        {File: "/a.db", Query: "UPDATE t", reason: ReasonLocked},
		"/a.db: UPDATE t at ?: its own snapshot was too old to write":                                   {File: "/a.db", Query: "UPDATE t", reason: ReasonBusySnapshot},
		"U at ?: held by transaction on db#7 (write, open for 1m30s) opened at ?: INSERT INTO t":        {Query: "U", Holders: []Holder{hold(false, TxWrite)}},
		"U at ?: held by its own transaction on db#7 (read, open for 1m30s) opened at ?: INSERT INTO t": {Query: "U", Holders: []Holder{hold(true, TxRead)}},
	} {
		if got := strings.ReplaceAll(b.String(), Frame{}.String(), "?"); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
	five := Blame{Query: "U", Holders: slices.Repeat([]Holder{hold(false, TxUnknown)}, 5)}
	if s := five.String(); strings.Count(s, "db#7") != 3 || !strings.HasSuffix(s, "; and 2 more") {
		t.Error(s)
	}
}

// The places are bounded; those that are known go on counting.
func TestBlamedIsBounded(t *testing.T) {
	tr := New(Options{})
	at := make([]*callstack.Stack, 2000)
	for i := range at {
		at[i] = new(callstack.Stack)
		tr.blame(&Blame{Holders: []Holder{{Held: Held{Kind: KindRows, stack: at[i]}}}}, 0)
	}
	tr.blame(&Blame{Holders: []Holder{{Held: Held{Kind: KindRows, stack: at[0], Query: "SELECT"}}}}, sec)
	tr.blame(&Blame{Holders: []Holder{{Held: Held{Kind: KindRows, stack: at[1999]}}}}, sec)
	n := tr.Blamed()
	if len(n) != 1024 || n[0].Count != 2 || n[0].Query != "SELECT" || n[1].Count != 1 || !n[0].Last.After(n[1].Last) {
		t.Errorf("%d places, %+v", len(n), n[0])
	}
}

// Blames, looks and reports from everywhere.
func TestBlameBesideEverything(t *testing.T) {
	tr := New(Options{})
	l := &lab{t: t, Tracker: tr}
	p := newPool(t, tr, PoolConfig{Mode: Observe, Policy: limits(nil), Logger: quiet})
	file := File{Path: "/a.db"}
	var wg sync.WaitGroup
	for range 4 {
		f := l.on(p, file).lock(TxWrite)
		wg.Go(func() {
			for range 200 {
				f.begin("BEGIN", "")
				f.query("SELECT", "")
				p.blamed.Store(0)
				f.Blocked(ReasonBusy, false)
				tr.Blamed()
				tr.Held()
				f.do(f.rollback)
			}
		})
	}
	wg.Wait()
	if n := tr.Stats().Blocked; n != 800 {
		t.Errorf("%d counted, want 800", n)
	}
	for _, f := range l.fakes {
		f.in()
		f.Close()
	}
	p.Close()
	tr.Close()
}
