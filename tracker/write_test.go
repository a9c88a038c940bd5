package tracker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// reportPool is a pool whose connections carry out any order at once.
type reportPool struct {
	*tracker.Pool
	t *testing.T
}

func newReportPool(t *testing.T, tr *tracker.Tracker, name string, mode tracker.Mode, p tracker.Policy) reportPool {
	t.Helper()
	pool, err := tr.NewPool(tracker.PoolConfig{
		SQL:  tracker.SQLFull,
		Name: name, Mode: mode, Policy: p, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return reportPool{pool, t}
}

// reportConn plays the driver: one connection with the resources it opened.
type reportConn struct {
	*tracker.Conn
	mu   sync.Mutex
	open []*tracker.Resource
}

// open opens a leased connection.
func (p reportPool) open(exempt string) *reportConn {
	c := &reportConn{}
	c.Conn = p.Pool.Open(reportControl{c}, true, exempt)
	c.moved()
	return c
}

// What the owner writes comes between Record and Recorded.

func (c *reportConn) CheckOut(exempt string) {
	c.Record()
	c.Conn.CheckOut(exempt)
	c.Recorded()
}

func (c *reportConn) CheckIn() tracker.Reason {
	c.Record()
	defer c.Recorded()
	return c.Conn.CheckIn()
}

func (c *reportConn) OpenRows(r *tracker.Resource, query, exempt string) {
	c.Record()
	c.Conn.OpenRows(r, query, exempt)
	c.Recorded()
}

func (c *reportConn) CloseResource(r *tracker.Resource) {
	c.Record()
	c.Conn.CloseResource(r)
	c.Recorded()
}

func (c *reportConn) moved() { c.Word().Add(1 << 8) }

func (c *reportConn) rows(query string) *tracker.Resource {
	r := new(tracker.Resource)
	c.OpenRows(r, query, "")
	c.mu.Lock()
	c.open = append(c.open, r)
	c.mu.Unlock()
	c.moved()
	return r
}

func (c *reportConn) undo() {
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for _, r := range open {
		c.CloseResource(r)
	}
	c.EndTx()
}

type reportControl struct{ c *reportConn }

func (k reportControl) Look(f func()) bool       { f(); return true }
func (k reportControl) Nudge() bool              { return false }
func (k reportControl) Memory() (int64, bool)    { return 0, false }
func (k reportControl) TxState() tracker.TxState { return tracker.TxUnknown }
func (k reportControl) Carry(o *tracker.Order) tracker.Outcome {
	if o.Scope == tracker.ScopeLease || o.Scope == tracker.ScopeTransaction {
		k.c.undo()
	}
	return tracker.Done
}

// reportLimits makes an idle lease a suspect after a minute.
func reportLimits() tracker.Policy {
	p := tracker.DefaultPolicy()
	p.LeakAfter = time.Minute
	p.CheckInterval = 10 * time.Second
	return p
}

func reportText(t *testing.T, tr *tracker.Tracker) string {
	t.Helper()
	var b strings.Builder
	n, err := tr.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Errorf("WriteTo returned %d, wrote %d bytes", n, b.Len())
	}
	for i, line := range strings.Split(b.String(), "\n") {
		if strings.TrimRight(line, " ") != line {
			t.Errorf("line %d ends in blanks: %q", i+1, line)
		}
	}
	return b.String()
}

// reportWants checks that the lines stand in the report in this order. Blanks
// count as one.
func reportWants(t *testing.T, text string, want ...string) {
	t.Helper()
	rest := regexp.MustCompile(` +`).ReplaceAllString(text, " ")
	for _, w := range want {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Errorf("report lacks %q, or it stands too early\n%s", w, text)
			return
		}
		rest = after
	}
}

func TestReportWithoutLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		time.Sleep(time.Second)
		reportWants(t, reportText(t, tr),
			"leakguard report, 2000-01-01 00:00:01",
			"0 open connections (0 leased, 0 idle), 0 transactions, 0 result sets, 0 statements",
			"\nno leaks\n", "\nno open connections\n", "leaked_detected 0")

		pool := newReportPool(t, tr, "shop", tracker.Enforce, reportLimits())
		c := pool.open("")
		c.Executing("SELECT 1")
		c.CheckIn()
		time.Sleep(90 * time.Second)
		reportWants(t, reportText(t, tr),
			"1 open connection (0 leased, 1 idle)",
			"no leaks",
			"connection state age idle level tx age accesses site query",
			"shop#1 idle 1m30s 1m",
			"created 1")
		c.Close()
		pool.Close()
	})
}

func TestReportGroupsSuspectsBySite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		time.Sleep(time.Second)
		pool := newReportPool(t, tr, "shop", tracker.Observe, reportLimits())
		var conns []*reportConn
		for range 9 {
			c := pool.open("")
			c.rows("SELECT name\n\tFROM products  WHERE id = ?") // site A
			conns = append(conns, c)
			time.Sleep(time.Second)
		}
		tx := pool.open("nightly import")
		tx.BeginTx("BEGIN", "nightly import") // site B
		tx.SetLevel(3)
		tx.moved()
		conns = append(conns, tx)
		time.Sleep(2 * time.Minute)
		text := reportText(t, tr)
		reportWants(t, text,
			"9 open suspects, at 1 site",
			"9 x rows at tracker/write_test.go:", "leak_after (limit 1m0s)",
			"connection shop#1, shop#2, shop#3, shop#4, shop#5 and 4 more",
			"oldest 2m9s, idle for ", // by now, not when it was found
			"query SELECT name FROM products WHERE id = ?",
			"follows reported only: mode observe", "to mend it defer rows.Close() at this line",
			"stack tracker/write_test.go:", "reportConn).rows",
			"tracker/write_test.go:", "TestReportGroupsSuspectsBySite",
			"exempt: reported, never undone, at 1 site",
			"1 x transaction at tracker/write_test.go:",
			"connection shop#10",
			"age 2m0s, idle for ",
			"level 3",
			"exempt nightly import",
			"10 open connections",
			"shop#1 leased", "shop#10 leased 2m0s ", "3 2m0s 1")
		if strings.Contains(text, "runtime.goexit") {
			t.Errorf("the runtime's frames are in the report:\n%s", text)
		}
		for _, c := range conns {
			c.undo()
			c.CheckIn()
			c.Close()
		}
		pool.Close()
		tr.Close()
		reportWants(t, reportText(t, tr), "no open suspects", "10 leaks that are over in the history (10 leaks found in all)",
			"9 x rows at tracker/write_test.go:", "9 came back by itself",
			"1 x transaction", "came back by itself",
			"recovered 10")
	})
}

// A transaction beyond its limits may be at work: how long it idles is not said.
func TestReportOfOldTransactions(t *testing.T) {
	for name, limit := range map[string]func(p *tracker.Policy) *time.Duration{
		"tx_timeout": func(p *tracker.Policy) *time.Duration { return &p.TxTimeout },
		"tx_limit":   func(p *tracker.Policy) *time.Duration { return &p.TxLimit },
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := tracker.New(tracker.Options{})
			policy := tracker.Policy{CheckInterval: 10 * time.Second, MemoryInterval: time.Minute}
			*limit(&policy) = time.Minute
			pool := newReportPool(t, tr, "shop", tracker.Observe, policy)
			c := pool.open("")
			c.BeginTx("BEGIN", "")
			c.moved()
			time.Sleep(2*time.Minute - time.Second)
			text := reportText(t, tr)
			reportWants(t, text, "1 x transaction at tracker/write_test.go:", name+" (limit 1m0s)", "age 1m59s\n")
			if strings.Contains(text, "idle for") {
				t.Errorf("%s: it is said to idle:\n%s", name, text)
			}
			c.undo()
			c.CheckIn()
			c.Close()
			pool.Close()
			tr.Close()
		})
	}
}

func TestReportOfWhatWasUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		time.Sleep(time.Second)
		pool := newReportPool(t, tr, "shop", tracker.Enforce, reportLimits())
		rows, tx, held := pool.open(""), pool.open(""), pool.open("")
		rows.rows("SELECT 1")
		time.Sleep(time.Second) // so that it is the older one
		tx.BeginTx("BEGIN", "")
		tx.moved()
		time.Sleep(2 * time.Minute)
		reportWants(t, reportText(t, tr),
			"1 open suspect, at 1 site",
			"1 x connection at tracker/write_test.go:",
			"2 leaks that are over in the history (3 leaks found in all)",
			"1 x rows at tracker/write_test.go:", "closed last 00:01:", "SELECT 1",
			"1 x transaction at tracker/write_test.go:", "rolled back last 00:01:", "BEGIN",
			"3 open connections",
			"shop#1 leased*",
			"shop#3 leased ",
			"* what the lease held was undone; the pool gets the slot back when the holder lets go",
			"leaked_detected 3", "reaped 2")
		for _, c := range []*reportConn{rows, tx, held} {
			c.CheckIn()
			c.Close()
		}
		pool.Close()
	})
}

func TestReportOfProvenRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		time.Sleep(time.Second)
		pool := newReportPool(t, tr, "shop", tracker.Enforce, reportLimits())
		c := pool.open("")
		r := c.rows("SELECT 1")
		time.Sleep(30 * time.Second)
		c.Proven(r, true)
		c.undo()
		reportWants(t, reportText(t, tr), "no open suspects", "1 leak that is over", "rows at", "proven closed", "shop#1 leased*", "proven 1")
		c.CheckIn()
		c.Close()
		pool.Close()
	})
}

func TestReportOfTooManyStatements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		time.Sleep(time.Second)
		p := reportLimits()
		p.MaxStatements = 3
		pool := newReportPool(t, tr, "shop", tracker.Enforce, p)
		c := pool.open("")
		stmts := make([]tracker.Resource, 3)
		for i := range stmts {
			c.OpenStatement(&stmts[i], "SELECT ?", "")
		}
		c.moved()
		time.Sleep(30 * time.Second)
		reportWants(t, reportText(t, tr),
			"1 x statement at tracker/write_test.go:", "max_statements (open 3 times)", "age 30s\n",
			"query SELECT ?", "kept a statement may be in use")
		for i := range stmts {
			c.CloseResource(&stmts[i])
		}
		c.CheckIn()
		c.Close()
		pool.Close()
	})
}

func TestReportOfLostConnection(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	pool := newReportPool(t, tr, "shop", tracker.Enforce, tracker.Policy{})
	c := pool.open("")
	c.Lost()
	reportWants(t, reportText(t, tr), "1 open suspect", "connection at", "panic", "kept a call never came back from SQLite")
	c.CheckIn()
	c.Close()
	pool.Close()
	reportWants(t, reportText(t, tr), "no open suspects", "1 leak that is over", "given up")
}

func TestReportBeyondTheHistory(t *testing.T) {
	tr := tracker.New(tracker.Options{History: 1})
	pool := newReportPool(t, tr, "shop", tracker.Enforce, tracker.Policy{})
	c := pool.open("")
	c.Proven(c.rows("SELECT 1"), true)
	c.undo()
	c.Proven(c.rows("SELECT 2"), false) // the last event
	reportWants(t, reportText(t, tr), "1 open suspect", "2 leaks in all; the history does not reach back to those that are over")
	c.undo()
	c.CheckIn()
	c.Close()
	pool.Close()
}

func TestReportSpeaksPlainText(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := newReportPool(t, tr, "a\x1b[2Jb", tracker.Enforce, tracker.Policy{})
	c := p.open("")
	r := c.rows("SELECT '\x1b[31m\x00\u202e' -- \u2028")
	text := reportText(t, tr)
	c.Proven(r, true)
	text += reportText(t, tr)
	if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' && c != '\n' || c == '\u202e' || c == '\u2028' }); i >= 0 {
		t.Errorf("control character %q in the report:\n%q", text[i:i+3], text)
	}
	reportWants(t, text, "a?[2Jb#1", "SELECT '?[31m")
	c.undo()
	c.CheckIn()
	c.Close()
	p.Close()
}

func TestReportWithoutStacks(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	pool, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "shop", NoStacks: true, Missing: []string{"cgo"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := pool.Open(reportControl{}, true, "")
	c.Lost()
	text := reportText(t, tr)
	reportWants(t, text, "missing here: cgo", "1 x connection at unknown: panic")
	if strings.Contains(text, "stack") {
		t.Errorf("a stack from nowhere:\n%s", text)
	}
	c.CheckIn()
	c.Close()
	pool.Close()
}

func TestReportToFailingWriter(t *testing.T) {
	want := errors.New("full")
	n, err := tracker.New(tracker.Options{}).WriteTo(reportWriter{want})
	if n != 3 || !errors.Is(err, want) {
		t.Errorf("WriteTo = %d, %v; want 3, %v", n, err, want)
	}
}

type reportWriter struct{ err error }

func (w reportWriter) Write(p []byte) (int, error) { return 3, w.err }

// Reports are written while connections come and go.
func TestReportWhileBusy(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	pool := newReportPool(t, tr, "shop", tracker.Enforce, tracker.Policy{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				c := pool.open("")
				c.BeginTx("BEGIN", "")
				r := c.rows(fmt.Sprint("SELECT ", i))
				if n%3 == 0 {
					c.Proven(r, true)
				}
				c.undo()
				c.CheckIn()
				c.Close()
			}
		})
	}
	for range 50 {
		if _, err := tr.WriteTo(io.Discard); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	pool.Close()
}

// The columns of a table begin at the same place in every line.
func TestReportIsAligned(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	pool := newReportPool(t, tr, "a-pool-with-a-long-name", tracker.Enforce, tracker.Policy{})
	c, d := pool.open(""), pool.open("")
	c.Executing("SELECT 1")
	c.CheckIn()
	d.Executing("SELECT 2")
	var b bytes.Buffer
	if _, err := tr.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	var at []int
	for line := range strings.Lines(b.String()) {
		if i := max(strings.Index(line, "SELECT"), strings.Index(line, "query")); i >= 0 {
			at = append(at, utf8.RuneCountInString(line[:i]))
		}
	}
	if len(at) != 3 || slices.Max(at) != slices.Min(at) {
		t.Errorf("the last column begins at %v:\n%s", at, b.String())
	}
	for _, c := range []*reportConn{c, d} {
		c.CheckIn()
		c.Close()
	}
	pool.Close()
}

// Who kept others waiting stands between the leaks and the connections, grouped
// by place, those that did so most often first.
func TestReportOfBlame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		pool := newReportPool(t, tr, "shop", tracker.Observe, reportLimits())
		if text := reportText(t, tr); strings.Contains(text, "kept others waiting") {
			t.Error(text)
		}
		conn := func() *reportConn {
			c := &reportConn{}
			c.Conn = pool.New(true, "")
			c.OpenedFile(tracker.File{Path: "/a.db"})
			c.Register(reportControl{c})
			return c
		}
		waits := conn()
		blame := func(times int) {
			for range times {
				waits.Blocked(tracker.ReasonBusy, false)
				time.Sleep(time.Second)
			}
		}
		a, b := conn(), conn()
		a.rows("SELECT name\n\tFROM products") // in reportConn.rows
		blame(2)
		a.undo()
		b.BeginTx("BEGIN", "") // here
		b.Executing("UPDATE products\x1b[2J")
		blame(3)
		b.undo()
		blame(1) // nobody
		reportWants(t, reportText(t, tr),
			"no leaks",
			"who kept others waiting: 5 times, at 2 sites",
			"3 x transaction at tracker/write_test.go:", "last 00:00:04 UPDATE products?[2J",
			"2 x rows at tracker/write_test.go:", "last 00:00:01 SELECT name FROM products",
			"3 open connections",
			"blocked 6")
		for _, c := range []*reportConn{waits, a, b} {
			c.CheckIn()
			c.Close()
		}
		pool.Close()
		tr.Close()
	})
}

// Long lists are cut.
func TestReportOfManyBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		pool := newReportPool(t, tr, "shop", tracker.Observe, reportLimits())
		var all []*reportConn
		conn := func() *reportConn {
			c := &reportConn{}
			c.Conn = pool.New(true, "")
			c.OpenedFile(tracker.File{Path: "/a.db"})
			c.Register(reportControl{c})
			all = append(all, c)
			return c
		}
		waits := conn()
		hold := []func(c *reportConn){
			func(c *reportConn) { c.BeginTx("1", "") },
			func(c *reportConn) { c.BeginTx("2", "") },
			func(c *reportConn) { c.BeginTx("3", "") },
			func(c *reportConn) { c.BeginTx("4", "") },
			func(c *reportConn) { c.BeginTx("5", "") },
			func(c *reportConn) { c.BeginTx("6", "") },
			func(c *reportConn) { c.BeginTx("7", "") },
			func(c *reportConn) { c.BeginTx("8", "") },
			func(c *reportConn) { c.BeginTx("9", "") },
			func(c *reportConn) { c.BeginTx("10", "") },
			func(c *reportConn) { c.BeginTx("11", "") },
			func(c *reportConn) { c.BeginTx("12", "") },
		}
		for i, f := range hold {
			f(conn())
			time.Sleep(time.Second)
			waits.Blocked(tracker.ReasonBusy, false)
			want := fmt.Sprintf("at %d site", i+1)
			text := reportText(t, tr)
			if !strings.Contains(text, want) || strings.Contains(text, "\n  and ") != (i == 11) {
				t.Errorf("%d: %s", i, text)
			}
		}
		reportWants(t, reportText(t, tr), "12 x transaction", "11 x transaction", "3 x transaction", "and 2 more", "open connections")
		for _, c := range all {
			c.undo()
			c.CheckIn()
			c.Close()
		}
		pool.Close()
		tr.Close()
	})
}

func TestReportOfTooManyPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		var pools []*tracker.Pool
		for range 3 {
			p := reportLimits()
			p.MaxPools = 3
			pool, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "shop", Path: "/a.db", Policy: p, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			pools = append(pools, pool)
		}
		time.Sleep(30 * time.Second)
		reportWants(t, reportText(t, tr),
			"1 open suspect, at 1 site",
			"1 x pool at tracker/write_test.go:", "max_pools (open 3 times)",
			"pool shop", "age 30s\n",
			"kept a pool may be in use", "stack tracker/write_test.go:")
		for _, p := range pools {
			p.Close()
		}
		tr.Close()
		reportWants(t, reportText(t, tr), "no open suspects", "1 x pool at tracker/write_test.go:", "max_pools (open 3 times) came back by itself")
	})
}

func TestReportOfWAL(t *testing.T) {
	file := tracker.File{Path: t.TempDir() + "/a.db"}
	if err := os.WriteFile(file.Path+"-wal", make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		p := reportLimits()
		p.WALLimit, p.LeakAfter = 2<<20, 0
		pool := newReportPool(t, tr, "shop", tracker.Observe, p)
		c := &reportConn{}
		c.Conn = pool.New(true, "")
		c.OpenedFile(file)
		c.Register(readingControl{reportControl{c}})
		c.BeginTx("BEGIN", "")
		c.moved()
		time.Sleep(time.Minute)
		reportWants(t, reportText(t, tr), "1 x transaction at tracker/write_test.go:", "wal_limit (WAL of 3.0 MiB, limit 2.0 MiB)", "age 1m0s\n")
		c.undo()
		c.CheckIn()
		c.Close()
		pool.Close()
		tr.Close()
	})
}

type readingControl struct{ reportControl }

func (readingControl) TxState() tracker.TxState { return tracker.TxRead }
