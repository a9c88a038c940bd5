package leakguard

import (
	"context"
	"sync/atomic"
)

type exemptKey struct{}

// exempted is set by the first call of Exempt: until then no context is asked.
var exempted atomic.Bool

// Exempt returns a context whose leases, transactions and rows are reported
// with this reason when they break a limit, and never undone: a nightly
// import, an export that streams for hours. (What garbage collection proved to
// be out of reach is closed all the same, as go-sqlite3's finalizers do.) It holds for what is opened with
// the context, not for what was open before; an empty reason is "exempt". It
// panics if ctx is nil, as [context.WithValue] does.
func Exempt(ctx context.Context, reason string) context.Context {
	if reason == "" {
		reason = "exempt"
	}
	exempted.Store(true)
	return context.WithValue(ctx, exemptKey{}, reason)
}

// exemption returns the reason that the context carries, "" if none.
func exemption(ctx context.Context) string {
	if !exempted.Load() {
		return ""
	}
	reason, _ := ctx.Value(exemptKey{}).(string)
	return reason
}
