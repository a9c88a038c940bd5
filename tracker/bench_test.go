package tracker

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

func BenchmarkConn(b *testing.B) {
	tr := New(Options{})
	p := newPool(b, tr, PoolConfig{Logger: quiet})
	keep := p.Open(still{}, false, "") // so that the reaper stays
	defer keep.Close()
	b.ReportAllocs()
	for b.Loop() {
		p.Open(still{}, true, "").Close()
	}
}

// The registry alone: entering and leaving the list, with a thousand others in
// it.
func BenchmarkRegistry(b *testing.B) {
	r := scanned(b, 1000, false)
	p := newPool(b, r.t, PoolConfig{Logger: quiet})
	c := p.New(false, "")
	c.control = still{}
	b.ReportAllocs()
	for b.Loop() {
		r.t.add(c)
		r.t.remove(c, 0)
	}
}

func BenchmarkRows(b *testing.B) {
	for _, stacks := range []bool{true, false} {
		b.Run(fmt.Sprintf("stacks=%v", stacks), func(b *testing.B) {
			p := newPool(b, New(Options{}), PoolConfig{NoStacks: !stacks, Logger: quiet})
			c := p.Open(still{}, true, "")
			defer c.Close()
			var r Resource
			b.ReportAllocs()
			for b.Loop() {
				c.OpenRows(&r, "SELECT 1", "")
				c.CloseResource(&r)
			}
		})
	}
}

func BenchmarkTx(b *testing.B) {
	p := newPool(b, New(Options{}), PoolConfig{Logger: quiet})
	c := p.Open(still{}, true, "")
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		c.BeginTx("BEGIN", "")
		c.EndTx()
	}
}

func BenchmarkLease(b *testing.B) {
	for _, c := range []struct {
		name       string
		stacks, to bool
	}{{"stacks=true", true, false}, {"stacks=false", false, false}, {"subscriber", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			tr := New(Options{})
			p := newPool(b, tr, PoolConfig{NoStacks: !c.stacks, Logger: quiet})
			if c.to {
				defer tr.Subscribe(func(Event) {})()
			}
			conn := p.Open(still{}, false, "")
			defer conn.Close()
			b.ReportAllocs()
			for b.Loop() {
				conn.CheckOut("")
				conn.CheckIn()
			}
		})
	}
}

// scanned is a reaper that only the caller runs, over n connections.
func scanned(b *testing.B, n int, leased bool) *reaper {
	tr := New(Options{History: 1})
	r := &tr.reaper
	r.running = true // so that the timer does not set it off
	p := newPool(b, tr, PoolConfig{Logger: quiet})
	conns := make([]*Conn, n)
	for i := range conns {
		conns[i] = p.Open(still{}, leased, "")
	}
	b.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	r.scan(0)
	return r
}

// The usual check: nothing has moved and nothing is due.
func BenchmarkScanIdle(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := scanned(b, n, false)
			b.ReportAllocs()
			for b.Loop() {
				r.scan(time.Millisecond)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/conn")
		})
	}
}

// All have moved since the last check.
func BenchmarkScanMoved(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := scanned(b, n, true)
			now := time.Millisecond
			b.ReportAllocs()
			for b.Loop() {
				r.t.epoch++
				for _, c := range r.t.conns {
					c.word.Add(gate.Flags + 1)
				}
				now++
				r.scan(now)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/conn")
		})
	}
}

func BenchmarkStats(b *testing.B) {
	r := scanned(b, 1000, true)
	b.ReportAllocs()
	for b.Loop() {
		r.t.Stats()
	}
}

func BenchmarkEmit(b *testing.B) {
	for _, subscribed := range []bool{false, true} {
		b.Run(fmt.Sprintf("subscriber=%v", subscribed), func(b *testing.B) {
			tr := New(Options{})
			p := newPool(b, tr, PoolConfig{Mode: Basic})
			if subscribed {
				defer tr.Subscribe(func(Event) {})()
			}
			e := Event{Type: EventOpened, ConnectionID: "db#1", pool: p}
			b.ReportAllocs()
			for b.Loop() {
				tr.emit(e)
			}
		})
	}
}

// One check of many pools, each with a file of its own, at rest and where all have
// moved. It includes measuring their logs.
func BenchmarkLookFiles(b *testing.B) {
	for _, n := range []int{250, 2000} {
		for _, moved := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/moved=%v", n, moved), func(b *testing.B) {
				tr := New(Options{History: 1})
				r := &tr.reaper
				r.running = true // so that the timer does not set it off
				dir := b.TempDir()
				var conns []*Conn
				for i := range n {
					p := newPool(b, tr, PoolConfig{Logger: quiet})
					c := p.New(false, "")
					c.OpenedFile(File{Path: filepath.Join(dir, fmt.Sprint(i)), Device: 1, Inode: uint64(i + 1)})
					if err := os.WriteFile(c.file.Path+"-wal", nil, 0o600); err != nil {
						b.Fatal(err)
					}
					c.Register(still{})
					conns = append(conns, c)
				}
				b.Cleanup(func() {
					for _, c := range conns {
						c.Close()
					}
				})
				b.ReportAllocs()
				for b.Loop() {
					if moved {
						for _, c := range conns {
							c.word.Add(gate.Flags + 1)
						}
					}
					r.wakeLocked()
					r.look()
				}
			})
		}
	}
}
