package leakguard

import (
	"database/sql/driver"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var (
	identityTime = flag.Duration("identity", 0, "how long TestIdentity runs, 0 for a fixed number of programs")
	identityOnly = flag.Int("identity.program", -1, "the one program of a seed that TestIdentity runs, all if below 0")
)

// identityPrograms is how many programs run where no time is given.
const identityPrograms = 80

// TestIdentity runs random programs that ask for what only their connection
// knows, over go-sqlite3 and over the guard with every limit at a millisecond
// and one access, and compares what go-sqlite3's answers are determined to be.
// Over the guard each runs twice: in a bubble, where all that is due is done
// whenever the program idles, and in real time, beside the reaper.
func TestIdentity(t *testing.T) {
	// go-sqlite3 may be built to wait for a shared cache, without end for one that
	// the same goroutine holds: https://www.sqlite.org/unlock_notify.html
	waits := rawNumber(t, ":memory:", "SELECT sqlite_compileoption_used('ENABLE_UNLOCK_NOTIFY')") != 0
	seed := testSeed(t)
	over := time.Now().Add(*identityTime)
	var sum identityCounts
	n := 0
	for i := uint64(0); ; i++ {
		if *identityTime > 0 && !time.Now().Before(over) || *identityTime == 0 && i == identityPrograms {
			break
		}
		if *identityOnly >= 0 {
			i = uint64(*identityOnly)
		}
		p := newIdentityProgram(seed, i)
		if waits && p.journal == "shared memory" {
			p.journal = "memory"
		}
		n++
		if diff := p.differs(t, &sum); diff != "" {
			p, diff = p.shrink(t, diff)
			t.Fatalf("program %d of seed %d (-seed=%d -identity.program=%d): %s\n%v", i, seed, seed, i, diff, p)
		}
		if *identityOnly >= 0 {
			break
		}
	}
	t.Logf("%d programs, %d calls compared; %d times refreshed, %d connections closed by a limit, %d leaks",
		n, sum.answers, sum.refreshed, sum.recycled, sum.leaks)
	if *identityOnly < 0 && sum.refreshed+sum.recycled < uint64(n)/4 {
		t.Error("hardly any limit passed: not the case that was meant")
	}
	if sum.leaks > 0 {
		t.Errorf("%d leaks found in programs that have none", sum.leaks)
	}
}

type identityCounts struct {
	answers                    int
	refreshed, recycled, leaks uint64
}

// overRaw runs programs over go-sqlite3, which no idle time makes a difference to.
func overRaw() *identityEngine {
	return &identityEngine{
		connect: func(dsn string, e *identityEngine) (driver.Connector, error) {
			c := &plainConnector{dsn: dsn, used: new(atomic.Int64)}
			e.used.Store(c, c.used)
			return c, nil
		},
		idle: func(time.Duration) {},
	}
}

// overGuard runs programs over the guard.
func (p *identityProgram) overGuard(sum *identityCounts) *identityEngine {
	tr := tracker.New(tracker.Options{})
	shortOfMemory(tr)
	policy := limits(func(l *tracker.Policy) {
		// A correct program never rests beyond these.
		l.LeakAfter, l.TxTimeout = time.Hour, time.Hour
		l.CheckInterval, l.MemoryInterval = time.Millisecond, time.Millisecond
		identityLimits[p.limits](l)
	})
	return &identityEngine{
		connect: func(dsn string, e *identityEngine) (driver.Connector, error) {
			c, err := NewConnector(Config{DSN: dsn, Mode: p.mode, Policy: policy, Tracker: tr, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				return nil, err
			}
			return c, nil
		},
		idle: time.Sleep,
		over: func() {
			s := tr.Stats()
			sum.refreshed += s.Refreshed
			sum.recycled += s.Recycled
			for _, e := range tr.LeakHistory() {
				if e.Type == tracker.EventSuspect && e.Reason != tracker.ReasonLeakMemory && e.Reason != tracker.ReasonInPool || e.Type == tracker.EventReaped {
					sum.leaks++
				}
			}
		},
	}
}

// differs returns the first difference between go-sqlite3 and the guard, ""
// if there is none.
func (p *identityProgram) differs(t *testing.T, sum *identityCounts) string {
	t.Helper()
	raw, err := p.play(overRaw())
	if err != nil {
		t.Fatalf("go-sqlite3: %v\n%v", err, p)
	}
	if p.kind != soloKind || p.index%8 == 0 { // is it determined at all?
		again, err := p.play(overRaw())
		if err != nil {
			t.Fatalf("go-sqlite3: %v\n%v", err, p)
		}
		if diff := p.diff(raw, again, "go-sqlite3 again"); diff != "" {
			t.Fatalf("seed %d: go-sqlite3 differs from itself, so the test is wrong: %s\n%v", p.seed, diff, p)
		}
	}
	for _, told := range raw {
		sum.answers += len(told)
	}
	var guard [][]identityAnswer
	synctest.Test(t, func(*testing.T) {
		e := p.overGuard(sum)
		e.bubble, e.idle = true, func(d time.Duration) { time.Sleep(10 * d) } // which takes no time
		guard, err = p.play(e)
		e.over()
	})
	if err != nil {
		return fmt.Sprintf("in a bubble: %v", err)
	}
	if diff := p.diff(raw, guard, "in a bubble the guard"); diff != "" {
		return diff
	}
	hung := time.AfterFunc(5*time.Minute, func() { panic(fmt.Sprintf("hangs: seed %d, %v", p.seed, p)) })
	defer hung.Stop()
	e := p.overGuard(sum)
	guard, err = p.play(e)
	e.over()
	if err != nil {
		return err.Error()
	}
	return p.diff(raw, guard, "the guard")
}

// diff returns the first difference of two runs, the first of go-sqlite3. Of
// data_version counts which answers of one connection are equal.
func (p *identityProgram) diff(raw, other [][]identityAnswer, name string) string {
	for i := range raw {
		versions := make(map[int64][]int) // by connection
		for n := range max(len(raw[i]), len(other[i])) {
			if n >= len(raw[i]) || n >= len(other[i]) || raw[i][n].op != other[i][n].op {
				return fmt.Sprintf("goroutine %d went another way after %d answers over %s", i, n, name)
			}
			a, b := raw[i][n], other[i][n]
			what := fmt.Sprintf("goroutine %d, call %d:", i, a.op)
			if a.versioned != b.versioned || a.text != b.text {
				return fmt.Sprintf("%s go-sqlite3 says %s, %s says %s", what, a, name, b)
			}
			if !a.versioned {
				continue
			}
			for _, earlier := range versions[a.conn] {
				x, y := raw[i][earlier], other[i][earlier]
				if (x.version == a.version) != (y.version == b.version) {
					return fmt.Sprintf("%s go-sqlite3 says %s, and at call %d %s; %s says %s and %s", what, a, x.op, x, name, b, y)
				}
			}
			versions[a.conn] = append(versions[a.conn], n)
		}
	}
	return ""
}

// String returns what was told.
func (a identityAnswer) String() string {
	if a.versioned {
		return fmt.Sprintf("data_version %d", a.version)
	}
	return fmt.Sprintf("%q", a.text)
}

// shrink returns the shortest program found that differs, and how.
func (p *identityProgram) shrink(t *testing.T, diff string) (*identityProgram, string) {
	over := time.Now().Add(20 * time.Second)
	differs := func(q *identityProgram) bool {
		for range 3 { // it may take the right moment
			if d := q.differs(t, new(identityCounts)); d != "" {
				p, diff = q, d
				return true
			}
		}
		return false
	}
	for i := len(p.lanes) - 1; i >= 0; i-- {
		if q := p.with(func(q *identityProgram) { q.lanes[i] = nil }); len(q.lanes) > 1 {
			differs(q)
		}
	}
	for smaller := true; smaller && time.Now().Before(over); {
		smaller = false
		for i := range p.lanes {
			for size := len(p.lanes[i]); size > 0; size /= 2 {
				for from := 0; from+size <= len(p.lanes[i]) && time.Now().Before(over); {
					if differs(p.with(func(q *identityProgram) { q.lanes[i] = slices.Delete(q.lanes[i], from, from+size) })) {
						smaller = true
					} else {
						from += size
					}
				}
			}
		}
		for _, simpler := range []func(q *identityProgram){
			func(q *identityProgram) { q.mode = tracker.Enforce },
			func(q *identityProgram) { q.maxIdle = notSet },
			func(q *identityProgram) { q.maxOpen = notSet },
			func(q *identityProgram) { q.pools = 1 },
			func(q *identityProgram) { q.limits = "max_access" },
			func(q *identityProgram) { q.limits = "max_idle" },
		} {
			if q := p.with(simpler); strings.Split(q.String(), "\n")[0] != strings.Split(p.String(), "\n")[0] && (p.limits == "all" || q.limits == p.limits) {
				differs(q)
			}
		}
	}
	return p, diff
}

// with returns a copy that change was made to.
func (p *identityProgram) with(change func(*identityProgram)) *identityProgram {
	q := *p
	q.lanes = nil
	for _, ops := range p.lanes {
		q.lanes = append(q.lanes, slices.Clone(ops))
	}
	change(&q)
	return &q
}
