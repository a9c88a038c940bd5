package tracker

import (
	"context"
	"fmt"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Trace names the span that something was opened in, in the words of W3C Trace
// Context. The zero Trace is none.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	// Flags has bit 0 set if the trace is sampled.
	Flags byte
}

// IsValid reports whether both ids are set.
func (t Trace) IsValid() bool { return t.TraceID != [16]byte{} && t.SpanID != [8]byte{} }

// String returns the trace as the header traceparent has it, "" if it is not
// valid.
func (t Trace) String() string {
	if !t.IsValid() {
		return ""
	}
	return fmt.Sprintf("00-%x-%x-%02x", t.TraceID, t.SpanID, t.Flags)
}

// MarshalText spells the trace as String does.
func (t Trace) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// TraceHook writes the span that a context belongs to into t and returns true;
// false if there is none. (Returning it would copy it several times, on each
// opening.)
type TraceHook func(ctx context.Context, t *Trace) bool

// SetTraceHook has f asked for the span of what is opened from now on; nil ends
// that. The tracker knows no tracing library, and it keeps no context. There is
// one hook; the last one set holds.
//
// f runs in the driver, inside database/sql, at each opening of a lease, a
// transaction, a statement or rows: it must return at once, call nothing that
// waits, and may be called concurrently. Without a hook an opening pays one
// atomic load.
func (t *Tracker) SetTraceHook(f TraceHook) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f == nil {
		t.traceHook.Store(nil)
	} else {
		t.traceHook.Store(&f)
	}
	t.countListenersLocked()
}

// span is the trace of a resource. It is about the resource with that id and no
// other, so that closing has nothing to clear.
type span struct {
	id    uint64
	trace Trace
}

// trace returns what the hook said when r was opened. Conn.mu is held.
func (r *Resource) trace() Trace {
	if r.span == nil || r.span.id != r.id {
		return Trace{}
	}
	return r.span.trace
}

// TraceTx notes whose span the open transaction belongs to.
func (c *Conn) TraceTx(ctx context.Context) {
	if hook := c.pool.traceHook(); hook != nil {
		c.noteTrace(ctx, *hook, &c.tx)
	}
}

// TraceResource notes whose span rows or a statement belong to.
func (c *Conn) TraceResource(ctx context.Context, r *Resource) {
	if hook := c.pool.traceHook(); hook != nil {
		c.noteTrace(ctx, *hook, r)
	}
}

// noteTrace closes an open record before it asks the hook: nobody's code runs
// while readers are kept out.
func (c *Conn) noteTrace(ctx context.Context, hook TraceHook, r *Resource) {
	recording := c.word.Load()&gate.Recording != 0
	if recording {
		c.Recorded()
	}
	if c.traced == nil {
		c.traced = new(Trace)
	}
	known := hook(ctx, c.traced)
	c.Record()
	if known && r.id != 0 { // a connection opened for the pool's stock has no lease
		if r.span == nil {
			r.span = new(span)
		}
		*r.span = span{r.id, *c.traced}
	}
	if !recording {
		c.Recorded()
	}
}

// TraceLease notes whose span the present lease belongs to. Like TraceTx and
// TraceResource it follows the call that opened it, and does nothing unless
// there is a hook.
func (c *Conn) TraceLease(ctx context.Context) {
	if hook := c.pool.traceHook(); hook != nil {
		c.noteTrace(ctx, *hook, &c.lease)
	}
}

// traceHook returns the hook, nil without one.
func (p *Pool) traceHook() *TraceHook {
	if !p.heard.Load() {
		return nil
	}
	return p.tracker.traceHook.Load()
}
