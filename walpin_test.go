package leakguard

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// fillWAL writes so many bytes and some more.
func fillWAL(t testing.TB, g *guarded, bytes int64) {
	t.Helper()
	for walSize(g) <= bytes {
		run(t, g, "INSERT INTO big VALUES(randomblob(1<<18))")
	}
}

func walSize(g *guarded) int64 {
	info, err := os.Stat(fileOf(g.dsn) + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

func walLimit(limit int64) tracker.Policy {
	return limits(func(p *tracker.Policy) {
		p.LeakAfter = 5 * time.Minute
		p.WALLimit = limit
	})
}

// A reader that nobody reads on keeps the WAL; it is named for that, undone for
// its age, and then the WAL can be cut.
func TestWALPin(t *testing.T) {
	for name, limit := range map[string]int64{"small": 1 << 18, "default": tracker.DefaultPolicy().WALLimit} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				if limit == 64<<20 && testing.Short() {
					t.Skip("writes 64 MiB")
				}
				writer := open(t, Config{DSN: fileDSN(t, "_sync=OFF"), Policy: walLimit(limit)})
				run(t, writer, "CREATE TABLE big(b)", "INSERT INTO big VALUES(1), (2)")
				reader := open(t, Config{DSN: writer.dsn, Tracker: writer.tracker, Policy: walLimit(limit)})
				reader.giveUp(t)
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				rows, err := reader.QueryContext(ctx, "SELECT b FROM big") // here:pins
				check(err)
				rows.Next()
				sleep(time.Second)
				fillWAL(t, writer, limit)
				writer.expect(t, leakEvents)
				sleep(time.Minute)
				writer.expect(t, leakEvents, "suspect rows wal_limit")
				l := writer.events(tracker.EventSuspect)[0].Leak
				if got := siteText(l.Site()); got != markedLine(t, "pins") {
					t.Errorf("opened at %s", got)
				}
				if l.Bytes != walSize(writer) || l.LimitBytes != limit || l.Query != "SELECT b FROM big" || l.Pool != reader.connector.pool.Name() {
					t.Errorf("%+v, the WAL has %d", l, walSize(writer))
				}
				if n := writer.tracker.Stats().WALBytes; n != walSize(writer) { // once, though two pools have it
					t.Errorf("stats say %d, the WAL has %d", n, walSize(writer))
				}
				if busy := writer.outside(t, "PRAGMA wal_checkpoint(TRUNCATE)"); busy != 1 {
					t.Error("nobody is in the way")
				}
				sleep(10 * time.Minute)
				writer.expect(t, leakEvents, "suspect rows wal_limit", "reaped rows leak_after")
				if again := writer.events(tracker.EventReaped)[0].Leak; again.ID != l.ID {
					t.Errorf("leak %d was reaped, %d was told", again.ID, l.ID)
				}
				cut(t, rows, ErrReaped)
				writer.checkpoint(t)
				if n := walSize(writer); n != 0 {
					t.Errorf("the WAL has %d bytes", n)
				}
				sleep(2 * time.Minute)
				if s := writer.tracker.Stats(); s.WALBytes != 0 || s.LeakedDetected != 1 || s.Reaped != 1 || s.Recovered != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A reader in use is named as long as it keeps the WAL, and recovers when it
// closes. Rows that rest for too long are undone, under the same leak.
func TestWALPinOfMovingReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: walLimit(1 << 18)})
		run(t, g, "CREATE TABLE big(b)")
		tx := g.begin(t)
		number(t, tx, "SELECT count(*) FROM big")
		fillWAL(t, g, 1<<18)
		for range 20 {
			sleep(time.Minute)
			number(t, tx, "SELECT count(*) FROM big")
		}
		g.expect(t, leakEvents, "suspect transaction wal_limit")
		check(tx.Commit())
		sleep(time.Minute)
		g.expect(t, leakEvents, "suspect transaction wal_limit", "recovered transaction wal_limit")
		g.checkpoint(t)

		c := g.held(t)
		rows := query(t, c, "SELECT i FROM "+eleven+", (SELECT max(rowid) FROM big)")
		fillWAL(t, g, 1<<18)
		for range 20 {
			sleep(time.Minute)
			number(t, c, "SELECT 1")
		}
		g.expect(t, leakEvents[:1], "suspect transaction wal_limit", "suspect rows wal_limit")
		g.expect(t, leakEvents[3:], "reaped rows leak_after")
		cut(t, rows, ErrReaped)
	})
}

// A transaction that has read nothing keeps nothing, and of several readers the
// oldest is named.
func TestWALPinNamesTheOldest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := walLimit(1 << 18)
		p.LeakAfter = 0
		g := open(t, Config{Policy: p})
		run(t, g, "CREATE TABLE big(b)")
		g.begin(t) // no snapshot
		sleep(time.Second)
		var readers []*sql.Tx
		for range 3 {
			readers = append(readers, g.begin(t))
			number(t, readers[len(readers)-1], "SELECT count(*) FROM big")
			sleep(time.Second)
		}
		fillWAL(t, g, 1<<18)
		sleep(5 * time.Minute)
		g.expect(t, leakEvents, "suspect transaction wal_limit")
		check(readers[0].Commit())
		sleep(time.Minute)
		g.expect(t, leakEvents, "suspect transaction wal_limit", "recovered transaction wal_limit", "suspect transaction wal_limit")
		told := g.events(tracker.EventSuspect)
		if a, b := told[0].Leak.OpenedAt, told[1].Leak.OpenedAt; b.Sub(a) != time.Second {
			t.Errorf("named were those of %v and %v", a, b)
		}
	})
}

// Switched off, and in modes that look at nothing, nobody is named.
func TestWALPinSwitchedOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, cfg := range []Config{
			{Policy: walLimit(0)},
			{Policy: walLimit(1 << 18), Mode: tracker.Basic},
			{Policy: walLimit(1 << 30)},
		} {
			cfg.Policy.LeakAfter = 0
			g := open(t, cfg)
			run(t, g, "CREATE TABLE big(b)")
			number(t, g.begin(t), "SELECT count(*) FROM big")
			fillWAL(t, g, 1<<18)
			sleep(10 * time.Minute)
			g.expect(t, leakEvents)
		}
	})
}

// Observed, it is named and left alone.
func TestWALPinObserved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: walLimit(1 << 18), Mode: tracker.Observe})
		run(t, g, "CREATE TABLE big(b)")
		tx := g.begin(t)
		number(t, tx, "SELECT count(*) FROM big")
		fillWAL(t, g, 1<<18)
		sleep(time.Hour)
		g.expect(t, leakEvents, "suspect transaction wal_limit")
		check(tx.Commit())
		g.expect(t, leakEvents[2:3], "recovered transaction leak_after")
	})
}
