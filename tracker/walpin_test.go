package tracker

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// wal makes the WAL of a file that long.
func wal(t *testing.T, file File, size int64) {
	t.Helper()
	if err := os.WriteFile(file.Path+"-wal", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file.Path+"-wal", size); err != nil {
		t.Fatal(err)
	}
}

func walLimit(p *Policy) { p.WALLimit = 1000 }

// A reader stays named while it moves and the WAL is large, and no longer.
func TestWALPinRecovers(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db")}
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { walLimit(p); p.LeakAfter = 5 * mins }))
		tx, rows := l.on(p, file).lock(TxRead), l.on(p, file).lock(TxRead)
		wal(t, file, 1000)
		l.sleep(sec)
		tx.begin("BEGIN", "")
		l.sleep(sec)
		r := rows.query("SELECT", "")
		move := func(minutes int) {
			for range minutes {
				tx.touch()
				rows.next(r)
				l.sleep(mins)
			}
		}
		move(20)
		l.expect()
		wal(t, file, 1001)
		move(20)
		l.expect("21m0s suspect transaction wal_limit #1")
		if s := p.Stats(); s.WALBytes != 1001 {
			t.Errorf("%d bytes", s.WALBytes)
		}
		wal(t, file, 1000)
		move(1)
		l.expect("41m0s recovered transaction wal_limit #1")
		wal(t, file, 5000)
		move(1)
		l.expect("42m0s suspect transaction wal_limit #2")
		tx.commit()
		move(1)
		l.expect("42m2s recovered transaction wal_limit #2", "43m0s suspect rows wal_limit #3")
		if err := os.Remove(file.Path + "-wal"); err != nil {
			t.Fatal(err)
		}
		move(1)
		l.expect("44m0s recovered rows wal_limit #3")
		if s := p.Stats(); s.WALBytes != 0 {
			t.Errorf("%d bytes", s.WALBytes)
		}
		checkBalance(t, l.Stats(), 0)
		rows.finish(r)
	})
}

// Who is named: who reads, or writes, or is inside SQLite with something open.
func TestWALPinChooses(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(l *lab, p *Pool, file File)
		want string // the connection
	}{
		"nobody":     {func(l *lab, p *Pool, file File) { l.on(p, file).lock(TxRead) }, ""},
		"bare BEGIN": {func(l *lab, p *Pool, file File) { l.on(p, file).lock(TxNone).begin("BEGIN", "") }, ""},
		"gate taken": {func(l *lab, p *Pool, file File) { f := l.on(p, file); f.begin("BEGIN", ""); f.shutGate(true) }, ""},
		"statement":  {func(l *lab, p *Pool, file File) { l.on(p, file).lock(TxRead).prepare("SELECT") }, ""},
		"another":    {func(l *lab, p *Pool, file File) { l.on(p, File{Path: "/b.db"}).lock(TxRead).begin("BEGIN", "") }, ""},
		"writer":     {func(l *lab, p *Pool, file File) { l.on(p, file).lock(TxWrite).begin("BEGIN", "") }, "db#2"},
		"busy":       {func(l *lab, p *Pool, file File) { f := l.on(p, file); f.begin("BEGIN", ""); f.enter() }, "db#2"},
		"other pool": {func(l *lab, p *Pool, file File) {
			l.on(l.pool(Observe, limits(nil)), file).lock(TxRead).begin("BEGIN", "")
		}, "db-1#2"},
		"oldest rows": {func(l *lab, p *Pool, file File) {
			a, b := l.on(p, file).lock(TxRead), l.on(p, file).lock(TxRead)
			l.on(p, file).begin("BEGIN", "") // no lock
			b.query("SELECT", "")
			l.sleep(sec)
			a.begin("BEGIN", "")
		}, "db#3"},
	} {
		t.Run(name, func(t *testing.T) {
			file := File{Path: filepath.Join(t.TempDir(), "a.db")}
			wal(t, file, 1001)
			inBubble(t, func(l *lab) {
				p := l.pool(Observe, limits(walLimit))
				l.on(p, file)
				synctest.Wait() // the first look comes at once, and would see what is half done
				c.set(l, p, file)
				l.sleep(10 * mins)
				got := ""
				for _, e := range l.LeakHistory() {
					got += e.ConnectionID
					if e.Leak.Bytes != 1001 || e.Leak.LimitBytes != 1000 || e.Reason != ReasonWALLimit {
						t.Errorf("%+v", e)
					}
				}
				if got != c.want {
					t.Errorf("named %q, want %q", got, c.want)
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

// The lowest limit of the pools of a file counts; switched off, it is forgiven.
func TestWALPinLimits(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db"), Device: 1, Inode: 9}
	wal(t, file, 1001)
	inBubble(t, func(l *lab) {
		low, off := l.pool(Enforce, limits(walLimit)), l.pool(Enforce, limits(nil))
		high := l.pool(Enforce, limits(func(p *Policy) { p.WALLimit = 1 << 30 }))
		l.on(high, file)
		l.on(off, file).lock(TxRead).begin("BEGIN", "")
		l.sleep(10 * mins)
		l.expect()
		l.on(low, file)
		l.sleep(mins)
		l.expect("11m0s suspect transaction wal_limit #1")
		if err := low.SetPolicy(limits(nil)); err != nil {
			t.Fatal(err)
		}
		l.sleep(mins)
		l.expect("11m0s recovered transaction wal_limit #1")
	})
}

// Rows named for the WAL are undone for their age under the same leak.
func TestWALPinThenForgotten(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db")}
	wal(t, file, 1001)
	for _, moving := range []bool{false, true} {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, limits(func(p *Policy) { walLimit(p); p.LeakAfter = 5 * mins }))
			f := l.on(p, file).lock(TxRead)
			f.query("SELECT", "")
			for range 20 {
				if moving {
					f.touch()
				}
				l.sleep(mins)
			}
			var got []string
			for _, e := range l.LeakHistory() {
				if e.Leak.ID != 1 {
					t.Errorf("%+v", e.Leak)
				}
				got = append(got, e.Type.String()+" "+string(e.Reason))
			}
			if len(got) != 2 || got[0] != "suspect wal_limit" || got[1] != "reaped leak_after" {
				t.Errorf("moving %v: %q", moving, got)
			}
		})
	}
}
