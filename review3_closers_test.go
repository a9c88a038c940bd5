package leakguard

import "testing"

// Closing is bounded in number: each may keep a thread for as long as a checkpoint takes.
// Not parallel: it takes the place of all.
func TestReviewClosingIsBounded(t *testing.T) {
	g := open(t, Config{})
	run(t, g, createT)
	c := g.last()
	for range cap(closers) {
		closers <- struct{}{}
	}
	for !c.gate.Try() {
	}
	c.die(errConnClosed)
	c.gate.Release()
	for range 100 {
		if len(descriptors(t, fileOf(g.dsn))) == 0 {
			t.Fatal("closed beside all those that are being closed")
		}
	}
	for range cap(closers) {
		<-closers
	}
	waitFor(t, "the handle to be closed", func() bool { return len(descriptors(t, fileOf(g.dsn))) == 0 })
}
