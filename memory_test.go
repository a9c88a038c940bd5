package leakguard

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

const mib = 256 // pages

// fill makes a table of so many MiB, in any SQLite.
func fill(t testing.TB, on execer, mibs int) {
	t.Helper()
	run(t, on, "CREATE TABLE big(i INTEGER PRIMARY KEY, b)", fmt.Sprintf(
		"INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) SELECT i, zeroblob(3000) FROM n", mibs*mib))
}

const scan = "SELECT sum(length(b)) FROM big"

// machineAt gives the tracker a machine of which a share is in use.
func machineAt(tr *tracker.Tracker, percent *atomic.Int64) {
	tr.SetMemorySource(func() tracker.Memory {
		p := percent.Load()
		return tracker.Memory{Total: 1 << 30, Used: uint64(p) << 30 / 100, UsedPercent: float64(p)}
	})
}

func percent(n int64) *atomic.Int64 {
	p := new(atomic.Int64)
	p.Store(n)
	return p
}

// details returns what Stats says of the connections, by id.
func (g *guarded) details() map[string]tracker.ConnectionDetail {
	all := make(map[string]tracker.ConnectionDetail)
	for _, d := range g.connector.Stats().ActiveConnectionDetails {
		all[d.ConnectionID] = d
	}
	return all
}

func (g *guarded) detail(c *conn) tracker.ConnectionDetail { return g.details()[c.rec.ID()] }

// holds returns what SQLite says of a connection.
func holds(t testing.TB, c *conn) int64 {
	t.Helper()
	n, ok := c.db().TryMemory(c.gate.Shared() != nil)
	if !ok {
		t.Fatal("SQLite does not tell")
	}
	return n
}

// tooMuch limits conn_memory.
func tooMuch(bytes int64) tracker.Policy {
	return limits(func(p *tracker.Policy) { p.ConnMemory = bytes })
}

// Caches that differ by known amounts, and the figures are SQLite's own.
func TestMemoryFigures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: tooMuch(1 << 40)})
		fill(t, g, 64)
		want := make(map[string]int64)
		sizes := []int64{1, 8, 24, 48}
		var sum int64
		var conns []*conn
		g.SetMaxIdleConns(-1) // each one is new
		for _, size := range sizes {
			c := g.conn(t)
			run(t, c, fmt.Sprintf("PRAGMA cache_size=%d", -size<<10))
			number(t, c, scan)
			n := g.last()
			conns = append(conns, n)
			want[n.rec.ID()] = holds(t, n)
			sum += holds(t, n)
		}
		sleep(2 * time.Minute)
		for i, c := range conns {
			d := g.detail(c)
			if d.MemoryBytes != want[c.rec.ID()] || d.MemoryPeakBytes != d.MemoryBytes || d.MemoryAge != 0 {
				t.Errorf("%+v, SQLite says %d", d, want[c.rec.ID()])
			}
			if kib := d.MemoryBytes >> 10; kib < sizes[i]<<10*9/10 || kib > sizes[i]<<10*13/10 {
				t.Errorf("cache_size %d MiB: %d KiB", sizes[i], kib)
			}
		}
		m := g.connector.Stats().MemoryMonitoring
		if m.ConnectionMemoryBytes != sum {
			t.Errorf("together %d, want %d", m.ConnectionMemoryBytes, sum)
		}
		if m.SQLiteMemoryBytes < uint64(sum) {
			t.Errorf("SQLite has %d bytes, less than its connections, %d", m.SQLiteMemoryBytes, sum)
		}
		var names []string
		for _, s := range m.Sources {
			names = append(names, s.Name)
			if s.Name == "sqlite" && s.State != "ok" {
				t.Errorf("%+v", s)
			}
		}
		if want := []string{"system", "process", "swap", "cgroup", "cgroup pressure", "system pressure", "GOMEMLIMIT", "sqlite"}; !slices.Equal(names, want) {
			t.Errorf("sources %q, want %q", names, want)
		}
	})
}

// A release brings 20 MB and more below 100 KB while a cursor stays open, and
// the cursor goes on to its end.
func TestReleaseBesideACursor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		machineAt(tr, percent(99))
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF", "_cache_size=-65536"), Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure = 0.5 })})
		g.SetMaxOpenConns(1)
		fill(t, g, 24)
		c := g.conn(t)
		rows := query(t, c, "SELECT i, length(b) FROM big")
		for range 100 {
			rows.Next()
		}
		number(t, c, scan)
		k := g.last()
		if n := holds(t, k); n < 20<<20 {
			t.Fatalf("%d bytes to begin with", n)
		}
		sleep(time.Minute)
		if n := holds(t, k); n > 100_000 {
			t.Errorf("%d bytes are left", n)
		}
		if d := g.detail(k); d.MemoryBytes != holds(t, k) || d.MemoryPeakBytes < 20<<20 {
			t.Errorf("%+v", d)
		}
		n, i, length := 101, 0, 0
		for rows.Next() {
			n++
			if err := rows.Scan(&i, &length); err != nil || i != n || length != 3000 {
				t.Fatalf("row %d: %d, %d, %v", n, i, length, err)
			}
		}
		wantErr(t, "rows", rows.Err(), nil)
		if n != 24*mib {
			t.Errorf("%d rows, want %d", n, 24*mib)
		}
		g.expect(t, append(leakEvents, tracker.EventRecycled))
	})
}

// A write transaction's changed pages stay; that is no error. Once it is over,
// the next pass releases them and the connection lives.
func TestReleaseInAWriteTransaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: tooMuch(1 << 20)})
		g.SetMaxOpenConns(1)
		fill(t, g, 8)
		run(t, g, "PRAGMA cache_spill=OFF") // or they are written to make room
		tx := g.begin(t)
		run(t, tx, "UPDATE big SET b=randomblob(3000)")
		sleep(3 * time.Minute)
		if n := holds(t, g.last()); n < 8<<20 {
			t.Errorf("%d bytes are left", n)
		}
		wantErr(t, "INSERT", try(tx, "INSERT INTO big VALUES(-1, 1)"), nil)
		wantErr(t, "Commit", tx.Commit(), nil)
		sleep(time.Minute)
		if n := holds(t, g.last()); n > 1<<20 {
			t.Errorf("%d bytes when it was over", n)
		}
		if n := number(t, g, "SELECT count(*) FROM big"); n != 8*mib+1 || g.opened() != 1 {
			t.Errorf("%d rows, %d connections", n, g.opened())
		}
		g.expect(t, append(leakEvents, tracker.EventRecycled))
	})
}

// wide makes a schema that needs more than a MiB in each connection.
func wide(t testing.TB, on execer) {
	t.Helper()
	columns := make([]string, 1900)
	for i := range columns {
		columns[i] = fmt.Sprintf("column_%d TEXT", i)
	}
	for i := range 32 {
		run(t, on, fmt.Sprintf("CREATE TABLE wide_%d(%s)", i, strings.Join(columns, ",")))
	}
}

// A connection that a release does not bring down is given up once it sits in
// the pool.
func TestConnMemoryGivesUp(t *testing.T) {
	for expire, want := range map[tracker.Expiry]struct {
		event  string
		opened int
	}{tracker.Refresh: {"refreshed conn_memory", 1}, tracker.Close: {"recycled conn_memory", 2}} {
		t.Run(expire.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.ConnMemory, p.Expire = 1<<20, expire })})
				g.SetMaxOpenConns(1)
				wide(t, g)
				types := []tracker.EventType{tracker.EventRefreshed, tracker.EventRecycled}
				c := g.conn(t)
				number(t, c, "SELECT count(*) FROM wide_1")
				sleep(time.Minute)
				if d := g.detail(g.last()); d.MemoryBytes < 1<<20 || d.MemoryBytes != holds(t, g.last()) {
					t.Fatalf("%+v", d)
				}
				g.expect(t, types, "refreshed conn_memory") // it is leased
				c.Close()
				g.expect(t, types, "refreshed conn_memory") // check-in decides nothing
				sleep(time.Minute)
				g.expect(t, types, "refreshed conn_memory", want.event)
				sleep(time.Hour) // and once is enough while it rests
				g.expect(t, types, "refreshed conn_memory", want.event)
				number(t, g, "SELECT count(*) FROM wide_1")
				if g.opened() != want.opened {
					t.Errorf("%d connections, want %d", g.opened(), want.opened)
				}
			})
		})
	}
}

// leak_memory: a suspect as long as it holds so much, and used on.
func TestLeakMemorySuspect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(func(p *tracker.Policy) { p.LeakMemory = 1 << 20 })})
		fill(t, g, 8)
		c := g.conn(t)
		number(t, c, scan)
		sleep(time.Hour)
		g.expect(t, leakEvents, "suspect connection leak_memory")
		l := g.events(tracker.EventSuspect)[0].Leak
		if l.Bytes < 3<<19 || l.LimitBytes != 1<<20 || !strings.Contains(l.String(), "memory_test.go") && !strings.Contains(l.String(), "fixture_test.go") {
			t.Errorf("%v", l)
		}
		number(t, c, scan)
		run(t, c, "PRAGMA shrink_memory")
		sleep(time.Minute)
		number(t, c, "SELECT 1")
		g.expect(t, leakEvents, "suspect connection leak_memory", "recovered connection leak_memory")
	})
}

// The connections of a shared cache are counted once.
func TestMemoryOfASharedCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF", "cache=shared", "_cache_size=-65536"), Policy: tooMuch(1 << 40)})
		fill(t, g, 8)
		first := g.conn(t)
		number(t, first, scan)
		sleep(time.Minute)
		alone := g.connector.Stats().MemoryMonitoring.ConnectionMemoryBytes
		for range 3 {
			number(t, g.conn(t), "SELECT count(*) FROM big WHERE i=1")
		}
		sleep(time.Minute)
		together := g.connector.Stats().MemoryMonitoring.ConnectionMemoryBytes
		if alone < 8<<20 || together < 8<<20 || together > alone+alone/4 {
			t.Errorf("one connection %d bytes, four of the same cache %d", alone, together)
		}
	})
}

// While the real connection is out, what runs on it does not pass the gate, and
// the monitor does not ask.
func TestMemoryOfARawConnection(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	c := g.conn(t)
	run(t, c, "SELECT 1")
	k := control{weak.Make(g.last())}
	if _, ok := k.Memory(); !ok {
		t.Error("not known")
	}
	if err := c.Raw(func(dc any) error { _, _ = SQLiteConn(dc); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Memory(); ok {
		t.Error("asked while the real connection is out")
	}
	c.Close()
	if _, ok := k.Memory(); !ok {
		t.Error("not known after check-in")
	}
}

// The monitor goes round while a query runs for ever on one connection.
func TestMonitorDoesNotWaitForAQuery(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	var passes atomic.Int64
	tr.SetMemorySource(func() tracker.Memory { passes.Add(1); return tracker.Memory{Total: 1, UsedPercent: 99} })
	g := open(t, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) {
		p.Pressure, p.ConnMemory, p.MemoryInterval = 0.5, 1, time.Millisecond
	})})
	started := make(chan struct{})
	g.connector.sqlite = funcs(map[string]any{"started": func() int { close(started); return 0 }})
	c := g.conn(t)
	ctx, cancel := context.WithCancel(background)
	failed := make(chan error, 1)
	go func() {
		failed <- c.QueryRowContext(ctx, strings.Replace(endless, "SELECT 1", "SELECT started()", 1)).Scan(new(int))
	}()
	<-started
	var others []*sql.Conn
	for range 20 {
		others = append(others, g.conn(t))
	}
	from, begin := passes.Load(), time.Now()
	for passes.Load() < from+50 && time.Since(begin) < 20*time.Second {
		time.Sleep(time.Millisecond)
	}
	if n := passes.Load() - from; n < 50 {
		t.Errorf("%d passes in %v", n, time.Since(begin))
	}
	select {
	case err := <-failed:
		t.Fatalf("the query ended: %v", err)
	default:
	}
	cancel()
	wantErr(t, "the query", <-failed, context.Canceled)
	run(t, others[0], "SELECT 1")
}

// Law 3: under pressure nothing is closed that must not be, whatever it holds.
func TestPressureDestroysNothing(t *testing.T) {
	for _, dsn := range []string{
		":memory:", "file::memory:", "file:pressure_a?mode=memory", "file:pressure_b?mode=memory&cache=shared",
		"file:/pressure_c?vfs=memdb", "",
	} {
		t.Run("dsn="+dsn, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				used, tr := percent(95), tracker.New(tracker.Options{})
				machineAt(tr, used)
				g := openExactly(t, Config{DSN: dsn, Tracker: tr, Policy: limits(func(p *tracker.Policy) {
					p.Pressure, p.ConnMemory = 0.85, 1 // everything is too much
				})})
				g.SetMaxOpenConns(1)
				fill(t, g, 3)
				for range 5 {
					sleep(time.Minute)
					if n := number(t, g, scan); n != 3*mib*3000 {
						t.Fatalf("%d bytes", n)
					}
					used.Store(170 - used.Load()) // 95, 75
				}
				if g.opened() != 1 {
					t.Errorf("%d connections were opened", g.opened())
				}
				g.expect(t, []tracker.EventType{tracker.EventKept, tracker.EventRecycled},
					"kept in-memory or temporary database: closing it would destroy the data")
				if s := g.connector.Stats(); s.ForceClosed != 0 || s.AggressiveCleanups != 3 {
					t.Errorf("%d force-closed, %d clean-ups", s.ForceClosed, s.AggressiveCleanups)
				}
			})
		})
	}
	for name, k := range keepings {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tr := tracker.New(tracker.Options{})
				machineAt(tr, percent(95))
				g := open(t, Config{DSN: fileDSN(t, k.dsn...), Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure, p.Expire = 0.85, tracker.Close })})
				g.SetMaxOpenConns(1)
				run(t, g, createT)
				run(t, g, k.text...)
				if k.do != nil {
					k.do(t, g)
				}
				sleep(time.Minute)
				types := []tracker.EventType{tracker.EventKept, tracker.EventRecycled}
				if k.why != "" {
					g.expect(t, types, "kept "+k.why)
				} else {
					g.expect(t, types, "recycled pressure")
				}
			})
		})
	}
}

// A transaction by SQL text that sits in the pool goes on after pressure.
func TestPressureKeepsOpenTransactions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		used := percent(10)
		machineAt(tr, used)
		g := open(t, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure = 0.85 })})
		g.SetMaxOpenConns(1)
		run(t, g, createT, "BEGIN", "INSERT INTO t VALUES(1)")
		used.Store(95)
		sleep(10 * time.Minute)
		run(t, g, "INSERT INTO t VALUES(2)", "COMMIT")
		if n := g.rows(t); n != 2 || g.opened() != 1 {
			t.Errorf("%d rows, %d connections", n, g.opened())
		}
	})
}

// Idle connections are given up and what is leased stays; while it lasts, those
// that are still heavy are given up once they are idle, and not at check-in.
func TestPressureInAPool(t *testing.T) {
	for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
		t.Run(expire.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tr := tracker.New(tracker.Options{})
				used := percent(10)
				machineAt(tr, used)
				g := open(t, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure, p.Expire = 0.85, expire })})
				g.SetMaxIdleConns(10)
				wide(t, g)
				var conns []*sql.Conn
				for range 6 {
					c := g.conn(t)
					number(t, c, "SELECT count(*) FROM wide_1")
					conns = append(conns, c)
				}
				for _, c := range conns[4:] {
					c.Close() // two are idle
				}
				tx := g.begin(t)
				_ = tx.Rollback()
				used.Store(95)
				sleep(time.Minute)
				told := g.events(tracker.EventPressure)
				if len(told) != 1 || !told[0].Pressure.On || told[0].Pressure.Released < 3<<20 {
					t.Fatalf("%v", told)
				}
				givenUp := func() (refreshed, recycled int) {
					return len(g.events(tracker.EventRefreshed)), len(g.events(tracker.EventRecycled))
				}
				refreshed, recycled := givenUp()
				if closed := told[0].Pressure.Closed; closed != recycled || expire == tracker.Close && closed != 2 || recycled == 2 && expire == tracker.Refresh {
					t.Errorf("%d closed, %d recycled", closed, recycled)
				}
				if refreshed+recycled < 2 {
					t.Errorf("%d refreshed, %d recycled, want both that are idle given up", refreshed, recycled)
				}
				for _, c := range conns[:4] {
					number(t, c, "SELECT count(*) FROM wide_2")
				}
				s := g.connector.Stats()
				if s.ForceClosed != uint64(recycled) || s.AggressiveCleanups != 1 || s.ActiveConnections != 4 || !s.MemoryMonitoring.MemoryPressure {
					t.Errorf("%+v", s)
				}
				for _, c := range conns[:4] {
					c.Close()
				}
				if again, n := givenUp(); again != refreshed || n != recycled {
					t.Errorf("given up at check-in: %d refreshed, %d recycled, before it %d and %d", again, n, refreshed, recycled)
				}
				sleep(2 * time.Minute)
				again, n := givenUp()
				if n-recycled+again-refreshed < 4 || expire == tracker.Close && n-recycled != 4 {
					t.Errorf("%d refreshed, %d recycled, want the four that became idle given up", again-refreshed, n-recycled)
				}
				for range 10 {
					sleep(time.Minute)
					number(t, g, "SELECT count(*) FROM wide_1")
				}
				if expire == tracker.Refresh && len(descriptors(t, fileOf(g.dsn))) == 0 {
					t.Error("the pool lost its last one")
				}
				used.Store(10)
				sleep(time.Minute)
				if told := g.events(tracker.EventPressure); len(told) != 2 || told[1].Pressure.On {
					t.Errorf("%v", told)
				}
			})
		})
	}
}

// Without SQLite's functions the monitor works with the rest, and says so once.
func TestMonitorWithoutCapabilities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		used := percent(95)
		machineAt(tr, used)
		g := blind(t, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure, p.ConnMemory, p.LeakMemory = 0.85, 1, 1 })})
		useEverything(t, g.DB)
		sleep(5 * time.Minute)
		used.Store(10)
		useEverything(t, g.DB)
		sleep(time.Minute)
		if n := len(g.events(tracker.EventPressure)); n != 2 {
			t.Errorf("%d events of pressure", n)
		}
	})
}

// Another program's pool in a bubble, with the machine's own figures.
func TestMachineReadInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.Pressure = 1 })})
		run(t, g, "SELECT 1")
		sleep(3 * time.Minute)
		m := g.connector.Stats().MemoryMonitoring
		if _, ok := capi.MemoryUsed(); ok && m.SQLiteMemoryBytes == 0 {
			t.Error("SQLite's memory is not known")
		}
		if m.AverageProcessMemoryMB < 1 || m.SystemMemoryPercent <= 0 || len(m.Sources) != 8 {
			t.Errorf("%+v", m)
		}
	})
}

// What a full pass asks of SQLite.
func BenchmarkConnectionMemory(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("conns=%d", n), func(b *testing.B) {
			g := open(b, Config{Policy: limits(nil)})
			run(b, g, createT)
			var all []control
			for range n {
				c := g.conn(b)
				number(b, c, "SELECT count(*) FROM t")
				all = append(all, control{weak.Make(g.last())})
			}
			for b.Loop() {
				for _, k := range all {
					if _, ok := k.Memory(); !ok {
						b.Fatal("not known")
					}
				}
			}
		})
	}
}

// What the machine's reading costs, once each pass.
func BenchmarkReadMemory(b *testing.B) {
	for b.Loop() {
		readMemory()
	}
}

// A light workload under permanent pressure and without, with a pass of the
// monitor each 10 ms, 3000 times as often as by default.
func BenchmarkLightWorkUnderPressure(b *testing.B) {
	for _, used := range []int64{10, 95} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			tr := tracker.New(tracker.Options{})
			machineAt(tr, percent(used))
			g := open(b, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) { p.Pressure, p.MemoryInterval = 0.85, 10*time.Millisecond })})
			run(b, g, createT, "INSERT INTO t VALUES(1)")
			for b.Loop() {
				number(b, g, "SELECT a FROM t WHERE a=1")
			}
		})
	}
}

// Readings of which every source fails, at the driver: it works, and says so once.
func TestDriverWithoutAnyMemorySource(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		tr.SetMemorySource(func() tracker.Memory {
			return tracker.Memory{Sources: []tracker.MemorySource{{Name: "system", State: "gopsutil: no"}, {Name: "cgroup", State: "no"}, {Name: "system pressure", State: "no"}, {Name: "sqlite", State: "this binary cannot tell"}}}
		})
		g := blind(t, Config{Tracker: tr, Policy: tracker.DefaultPolicy()})
		for range 3 {
			useEverything(t, g.DB)
			run(t, g, "DROP TABLE t")
			sleep(2 * time.Minute)
		}
		told := g.events(tracker.EventDegraded)
		if len(told) != 1 || !strings.Contains(string(told[0].Reason), "pressure has no effect") || !strings.Contains(string(told[0].Reason), "gopsutil: no") {
			t.Errorf("%v", told)
		}
		s := g.connector.Stats()
		if len(s.MemoryMonitoring.Sources) != 4 || len(g.events(tracker.EventPressure)) != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Connections with big caches that come, work and go while memory gets short and
// is there again, for the race detector. Each pass of the monitor reads another
// share, and the work goes on until ten of them were too much.
func TestMemoryChurn(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	var reads atomic.Int64
	tr.SetMemorySource(func() tracker.Memory {
		p := reads.Add(1) * 37 % 100
		return tracker.Memory{Total: 1 << 30, Used: uint64(p) << 30 / 100, UsedPercent: float64(p)}
	})
	g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF", "_cache_size=-8192", "_busy_timeout=60000"), Tracker: tr, Policy: limits(func(p *tracker.Policy) {
		p.Pressure, p.ConnMemory, p.LeakMemory, p.MemoryInterval, p.CheckInterval = 0.85, 1<<20, 2<<20, time.Millisecond, time.Millisecond
	})})
	fill(t, g, 3)
	g.SetMaxOpenConns(6)
	g.SetMaxIdleConns(4)
	short := make(chan struct{}, 10)
	t.Cleanup(tr.Subscribe(func(e tracker.Event) {
		if e.Pressure != nil && e.Pressure.On {
			select {
			case short <- struct{}{}:
			default:
			}
		}
	}))
	var over atomic.Bool
	done := make(chan error)
	for w := range 6 {
		go func() {
			var err error
			for n := 0; err == nil && (n < 20 || !over.Load()); n++ {
				switch (n + w) % 4 {
				case 0:
					var sum int64
					if err = g.QueryRow(scan).Scan(&sum); err == nil && sum != 3*mib*3000 {
						err = fmt.Errorf("%d bytes", sum)
					}
				case 1:
					_, err = g.Exec("UPDATE big SET b=zeroblob(3000) WHERE i % 100 = ?", w)
				case 2:
					var c *sql.Conn
					if c, err = g.Conn(background); err == nil {
						_, err = c.ExecContext(background, "SELECT 1")
						c.Close()
					}
				case 3:
					var rows *sql.Rows
					if rows, err = g.Query("SELECT i FROM big"); err == nil {
						seen := 0
						for rows.Next() {
							seen++
						}
						if err = rows.Err(); err == nil && seen != 3*mib {
							err = fmt.Errorf("%d rows", seen)
						}
					}
				}
			}
			done <- err
		}()
	}
	patience := time.After(time.Minute)
	for n := 0; n < cap(short) && !t.Failed(); n++ {
		select {
		case <-short:
		case <-patience:
			t.Errorf("%d times under pressure after %d readings", n, reads.Load())
		}
	}
	over.Store(true)
	for range 6 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// The program runs a statement beside the gate, through the handle that it got in a
// ConnectHook: what the monitor asks for comes back at once, with nothing.
func TestMemoryBesideTheProgram(t *testing.T) {
	t.Parallel()
	inside, goOn := make(chan bool), make(chan bool)
	var seen *sqlite3.SQLiteConn
	c := drive(t, Config{Mode: tracker.Basic, SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(s *sqlite3.SQLiteConn) error {
		seen = s
		return s.RegisterFunc("sit", func() int64 { inside <- true; <-goOn; return 0 }, false)
	}}})
	if !c.IsValid() {
		t.Fatal("not valid")
	}
	done := make(chan error, 1)
	go func() {
		_, err := seen.Exec("SELECT sit()", nil)
		done <- err
	}()
	<-inside
	k := control{weakOf(c)}
	if n, ok := k.Memory(); ok { // for ever, if it waits
		t.Errorf("%d bytes", n)
	}
	if out := k.Carry(order(tracker.ScopeRelease, 0)); out != tracker.Done {
		t.Errorf("release: %v", out)
	}
	goOn <- true
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Memory(); !ok {
		t.Error("not known behind it")
	}
}
