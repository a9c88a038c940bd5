//go:build cgo

package leakguard

import (
	"context"
	"testing"
	"time"
)

// rudeContext panics, or does what it likes, when it is asked for a value.
type rudeContext struct {
	context.Context
	asked func()
}

func (c rudeContext) Value(key any) any {
	if _, ok := key.(exemptKey); ok {
		c.asked()
	}
	return c.Context.Value(key)
}

// TestContextThatReports: nobody's code runs while readers of a record are kept
// out, the program's contexts included.
func TestContextThatReports(t *testing.T) {
	Exempt(background, "from now on contexts are asked")
	for name, f := range map[string]func(g *guarded, ctx context.Context) error{
		"rows": func(g *guarded, ctx context.Context) error {
			r, err := g.QueryContext(ctx, "SELECT 1")
			if err == nil {
				r.Close()
			}
			return err
		},
		"lease": func(g *guarded, ctx context.Context) error {
			c, err := g.DB.Conn(ctx)
			if err == nil {
				c.Close()
			}
			return err
		},
		"statement": func(g *guarded, ctx context.Context) error {
			s, err := g.PrepareContext(ctx, "SELECT 1")
			if err == nil {
				s.Close()
			}
			return err
		},
		"transaction": func(g *guarded, ctx context.Context) error {
			tx, err := g.BeginTx(ctx, nil)
			if err == nil {
				tx.Rollback()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, Config{})
			run(t, g, createT) // the pool has a connection
			over := make(chan error, 1)
			go func() {
				over <- f(g, rudeContext{background, func() { g.connector.Stats(); g.tracker.Records() }})
			}()
			select {
			case err := <-over:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("a context that asks for Stats hangs")
			}
		})
	}
}

// TestContextThatPanics: a panic of the program's context leaves no record open,
// which would stop all reports and the reaper.
func TestContextThatPanics(t *testing.T) {
	Exempt(background, "from now on contexts are asked")
	g := open(t, Config{})
	g.giveUp(t)
	run(t, g, createT)
	c := g.held(t)
	func() {
		defer func() { recover() }()
		c.QueryContext(rudeContext{background, func() { panic("no value") }}, "SELECT 1")
	}()
	over := make(chan struct{})
	go func() {
		g.tracker.Records()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Error("Records hangs")
	}
}
