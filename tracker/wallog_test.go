package tracker

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// Logs of files at rest are measured in turn, the others at each check.
func TestWALOfManyFiles(t *testing.T) {
	const n = 3*restingFiles + 10
	dir := t.TempDir()
	inBubble(t, func(l *lab) {
		file := func(i int) File {
			return File{Path: filepath.Join(dir, fmt.Sprint(i)), Device: 1, Inode: uint64(i + 1)}
		}
		grow := func(size int64) {
			for i := range n {
				wal(t, file(i), size)
			}
		}
		grow(1)
		var pools []*Pool
		var conns []*fake
		for i := range n {
			p := l.pool(Observe, limits(func(p *Policy) { p.WALLimit = 1 << 40 }))
			pools, conns = append(pools, p), append(conns, l.on(p, file(i)))
		}
		l.sleep(mins) // all of them are new
		sizes := func() (count map[int64]int) {
			count = make(map[int64]int)
			for _, p := range pools {
				count[p.Stats().WALBytes]++
			}
			return count
		}
		expect := func(when string, size int64, want int) {
			t.Helper()
			if got := sizes(); got[size] != want {
				t.Errorf("%s: sizes %v, want %d of %d", when, got, want, size)
			}
		}
		expect("new", 1, n)
		l.sleep(mins) // asking for the sizes has noted what moved since the look
		grow(2)
		for at := range 4 {
			l.sleep(mins)
			expect("at rest", 2, min((at+1)*restingFiles, n))
		}

		// What moves, or is open, is measured wherever the turn is.
		basic := l.pool(Basic, limits(nil))
		l.on(basic, file(7))
		tx, rows, raw, lost, busy, left := conns[20], conns[40], conns[60], conns[80], conns[100], conns[120]
		tx.begin("BEGIN", "")
		rows.query("SELECT", "")
		raw.do(raw.HandedOut)
		left.do(left.HandedOut)
		left.do(func() { left.TakenBack(TxRead, "") })
		left.in()
		lost.Lost()
		busy.enter()
		l.sleep(mins)
		sizes()
		l.sleep(mins)
		for i := range 3 {
			size := int64(3 + i)
			grow(size)
			conns[140].touch()
			l.sleep(mins)
			for _, i := range []int{7, 20, 40, 60, 80, 100, 120, 140} {
				if got := pools[i].Stats().WALBytes; got != size {
					t.Errorf("file %d has %d bytes, want %d", i, got, size)
				}
			}
			if got := sizes()[size]; got > restingFiles+8 {
				t.Errorf("%d files were measured", got)
			}
		}
		busy.leave()
		tx.commit()
		l.sleep(mins)
		l.Tracker.mu.Lock()
		defer l.Tracker.mu.Unlock()
		for i, w := range l.wals.list {
			var pins, blind int
			for _, c := range w.conns {
				if c.tx.id != 0 || c.rows.n > 0 || c.raw || c.left() != nil {
					pins++
				}
				if c.unwatched {
					blind++
				}
			}
			if w.pins != pins || w.blind != blind {
				t.Errorf("log %d: %d pins and %d that nobody looks at, want %d and %d", i, w.pins, w.blind, pins, blind)
			}
		}
	})
}

// Connections are of one log if and only if their files are the same.
func TestWALLogs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tr := New(Options{})
	var pools []*Pool
	for _, mode := range []Mode{Enforce, Observe, Basic} {
		pools = append(pools, newPool(t, tr, PoolConfig{Mode: mode, Logger: quiet}))
	}
	tr.reaper.running = true // it does not look
	var open []*Conn
	// A file has one number as long as it is open, and several paths.
	file := func() (f File) {
		if n := random.IntN(6); n > 0 {
			f = File{Path: fmt.Sprintf("/%d/%d", n, random.IntN(2)), Device: 1, Inode: uint64(n)}
		}
		return f
	}
	attach := func(c *Conn) {
		var all []Attached
		for i := range random.IntN(4) {
			all = append(all, Attached{fmt.Sprint(i), file()})
		}
		c.Attached(all)
	}
	for range 5000 {
		if len(open) > 0 && random.IntN(3) == 0 {
			c := open[random.IntN(len(open))]
			attach(c)
			tr.mu.Lock()
			open[random.IntN(len(open))].movedWAL(random.IntN(2) == 0, random.IntN(2) == 0)
			if random.IntN(50) == 0 {
				tr.unwatchLocked(c)
			}
			tr.mu.Unlock()
		} else if len(open) > 0 && random.IntN(2) == 0 {
			i := random.IntN(len(open))
			open[i].Close()
			open[i] = open[len(open)-1]
			open = open[:len(open)-1]
		} else {
			c := pools[random.IntN(3)].New(false, "")
			c.OpenedFile(file())
			if random.IntN(2) == 0 {
				attach(c) // by a ConnectHook
			}
			c.Register(still{})
			open = append(open, c)
		}
		conns, keys := 0, 0
		for place, w := range tr.wals.list {
			conns += len(w.conns)
			keys += 2
			if w.place != place || len(w.conns)+len(w.attached) == 0 {
				t.Fatalf("log %d: place %d, %d connections", place, w.place, len(w.conns))
			}
			var has []*Conn
			for _, c := range open {
				if len(c.hasLocked(w.file)) > 0 {
					has = append(has, c)
					if (c.wal == w) == w.attached[c] {
						t.Fatalf("%+v has the log as the main one %v, as an attached one %v", c.file, c.wal == w, w.attached[c])
					}
				}
			}
			if len(has) != len(w.conns)+len(w.attached) {
				t.Fatalf("%d connections have %+v, want %d", len(w.conns)+len(w.attached), w.file, len(has))
			}
			var watched, blind, pins int
			for i, c := range w.conns {
				if c.wal != w || int(c.walSlot) != i || !c.file.Same(w.file) {
					t.Fatalf("%+v is in the log of %+v", c.file, w.file)
				}
			}
			for _, c := range has {
				if c.pool.watched() {
					watched++
				}
				if c.unwatched {
					blind++
				}
				if c.seen.pins {
					pins++
				}
			}
			if w.watched != watched || w.blind != blind || w.pins != pins {
				t.Fatalf("%d are looked at, %d not, %d pin it, want %d, %d and %d", w.watched, w.blind, w.pins, watched, blind, pins)
			}
			for _, other := range tr.wals.list[:place] {
				if other.file.Same(w.file) {
					t.Fatalf("%+v has two logs", w.file)
				}
			}
		}
		if len(tr.wals.of) > keys {
			t.Fatalf("%d keys of %d logs", len(tr.wals.of), len(tr.wals.list))
		}
		inMemory := 0
		for _, c := range open {
			if c.wal == nil {
				inMemory++
			}
		}
		if conns+inMemory != len(open) {
			t.Fatalf("%d of %d connections have a log", conns, len(open))
		}
	}
	for _, c := range open {
		c.Close()
	}
	if len(tr.wals.list) != 0 || len(tr.wals.of) != 0 {
		t.Errorf("%d logs and %d keys are left", len(tr.wals.list), len(tr.wals.of))
	}
}

// Without a number, a file is known by its path.
func TestWALLogByPath(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(nil))
		logs := func(files ...File) (n int) {
			var conns []*fake
			for _, f := range files {
				conns = append(conns, l.on(p, f))
			}
			l.Tracker.mu.Lock()
			n = len(l.wals.list)
			l.Tracker.mu.Unlock()
			for _, c := range conns {
				c.Close()
			}
			synctest.Wait()
			return n
		}
		known, unknown := File{Path: "/a", Device: 1, Inode: 1}, File{Path: "/a"}
		for i, c := range []struct {
			files []File
			want  int
		}{
			{[]File{unknown, unknown}, 1},
			{[]File{known, unknown}, 1},
			{[]File{unknown, known}, 1},
			{[]File{known, {Path: "/a", Device: 1, Inode: 2}}, 2}, // replaced
			{[]File{known, {Path: "/b", Device: 1, Inode: 1}}, 1}, // a second name
			{[]File{known, {Path: "/b"}}, 2},
			{[]File{{}, {Cache: "x"}}, 0},
		} {
			if got := logs(c.files...); got != c.want {
				t.Errorf("%d: %d logs, want %d", i, got, c.want)
			}
		}
	})
}
