package tracker

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Kind is what kind of resource is meant.
type Kind uint8

const (
	KindConnection Kind = iota
	KindTransaction
	KindStatement
	KindRows
	KindPool
)

var kindNames = [...]string{"connection", "transaction", "statement", "rows", "pool"}

// String returns "connection", "transaction", "statement", "rows" or "pool",
// and for what is no kind its number: "Kind(9)".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// MarshalText spells the kind as String does; what is no kind is an error.
func (k Kind) MarshalText() ([]byte, error) {
	if int(k) >= len(kindNames) {
		return nil, fmt.Errorf("unknown kind %d", uint8(k))
	}
	return []byte(kindNames[k]), nil
}

// Reason says which limit was broken. The built-in ones are the names of the
// limits in a DSN; a [Detector] brings its own.
type Reason string

const (
	ReasonReportAfter   Reason = "report_after"
	ReasonLeakAfter     Reason = "leak_after"
	ReasonTxTimeout     Reason = "tx_timeout"
	ReasonTxLimit       Reason = "tx_limit"
	ReasonMaxStatements Reason = "max_statements"
	ReasonMaxPools      Reason = "max_pools"
	ReasonWALLimit      Reason = "wal_limit"
	ReasonConnMemory    Reason = "conn_memory"
	ReasonLeakMemory    Reason = "leak_memory"
	ReasonPressure      Reason = "pressure"
	ReasonMaxIdle       Reason = "max_idle"
	ReasonMaxLifetime   Reason = "max_lifetime"
	ReasonMaxAccess     Reason = "max_access"
	// ReasonInPool is a transaction begun by SQL text whose connection went
	// back into the pool with it.
	ReasonInPool Reason = "in_pool"
	// ReasonProven is garbage collection's word that nobody can close it.
	ReasonProven Reason = "proven"
	// ReasonPanic is a call that never came back from SQLite, because a Go
	// function called by SQL panicked or exited.
	ReasonPanic Reason = "panic"
	// ReasonOperator is an operator's word, see Tracker.Undo.
	ReasonOperator Reason = "operator"
)

// Leak describes a resource that a program seems to have forgotten.
type Leak struct {
	// ID counts the leaks of a tracker from 1. Events of one leak share it.
	ID     uint64 `json:"id"`
	Kind   Kind   `json:"kind"`
	Reason Reason `json:"reason"`
	Pool   string `json:"pool"`
	// ConnectionID names the connection, unique in the tracker.
	ConnectionID string `json:"connection_id"`
	// Resource is the resource's id, unique in its connection.
	Resource uint64 `json:"resource"`
	// OpenedAt is the wall clock time of opening.
	OpenedAt time.Time `json:"opened_at"`
	// Age is the time since it was opened, Idle since its last activity, both
	// when it was found. Age is true to 10 ms, but for a lease whose beginning nobody
	// saw: AgeAtLeast says that it may be older, as it does of OpenedAt. Idle counts
	// from the look at which the guard saw the last activity, so it is always at least
	// that, and short by one look at most.
	Age        time.Duration `json:"age"`
	AgeAtLeast bool          `json:"age_at_least,omitempty"`
	Idle       time.Duration `json:"idle"`
	// Limit is the limit that was broken, 0 if the reason has none.
	Limit time.Duration `json:"limit"`
	// Count is the number of open statements for ReasonMaxStatements, of open
	// pools for ReasonMaxPools. OnePlace says that one line opened all of them, and
	// that their texts, or files, may differ; without it they are of one text, or
	// of one file.
	Count    int64 `json:"count,omitempty"`
	OnePlace bool  `json:"one_place,omitempty"`
	// Bytes is the size of the WAL for ReasonWALLimit, the connection's memory
	// for ReasonLeakMemory, and LimitBytes the limit.
	Bytes      int64 `json:"bytes,omitempty"`
	LimitBytes int64 `json:"limit_bytes,omitempty"`
	// Operations counts what ran on its connection since it was first reported,
	// for a transaction that works on beyond tx_timeout and is reported again.
	Operations uint64 `json:"operations,omitempty"`
	// Level is a transaction's depth: 1, and 1 more for each savepoint.
	Level int `json:"level,omitempty"`
	// Query is the SQL text it was opened with, for a connection or a
	// transaction the last one that ran on it, as the pool's SQLText tells it.
	Query string `json:"query,omitempty"`
	// Stack is the call stack that opened it, empty if call sites are off.
	Stack Stack `json:"-"`
	// Last is the call stack of the last thing that was opened or the last SQL
	// text that began to run on its connection; the same text again counts as
	// the same place.
	Last Stack `json:"-"`
	// Trace is the span that opened it, or that took its lease; zero if none was
	// known (see SetTraceHook).
	Trace Trace `json:"trace,omitzero"`
	// Exempt is the reason given to Exempt: reported, never undone.
	Exempt string `json:"exempt,omitempty"`
	// Kept says why the guard will not undo it, empty if it may.
	Kept string `json:"kept,omitempty"`

	fate  *fate // shared by the leak's copies
	named bool  // by a detector
	maybe bool  // it is not known to keep the WAL: nobody may ask
	wal   File  // whose WAL it keeps
}

// fate sees to it that a leak ends once, whoever comes first.
type fate struct{ sealed atomic.Bool }

// LastSite returns the call of the last activity on its connection, as far as
// Last knows it.
func (l Leak) LastSite() Frame { return l.Last.Site() }

// Site returns the call that opened the resource.
func (l Leak) Site() Frame { return l.Stack.Site() }

// String returns the leak as one line: kind, reason, age, limit, site, query.
func (l Leak) String() string {
	var b strings.Builder
	on := l.ConnectionID
	if l.Kind == KindPool {
		on = l.Pool
	}
	fmt.Fprintf(&b, "%s %s on %s", l.Kind, l.verdict(), on)
	fmt.Fprintf(&b, ": opened at %s", l.Stack.at())
	if l.Query != "" {
		fmt.Fprintf(&b, ": %s", shorten(l.Query, 80))
	}
	if l.Exempt != "" {
		fmt.Fprintf(&b, " (exempt: %s)", l.Exempt)
	} else if l.Kept != "" {
		fmt.Fprintf(&b, " (kept: %s)", l.Kept)
	}
	return b.String()
}

// verdict words the reason with its figures.
func (l Leak) verdict() string {
	switch l.Reason {
	case ReasonReportAfter:
		return fmt.Sprintf("at rest for %v (report_after %v, open for %v)", AgeText(l.Idle, false), l.Limit, l.ageText())
	case ReasonLeakAfter:
		return fmt.Sprintf("without activity for %v (leak_after %v, open for %v)", AgeText(l.Idle, false), l.Limit, l.ageText())
	case ReasonTxTimeout, ReasonTxLimit:
		progress := ""
		if l.Operations > 0 {
			progress = ", " + many(l.Operations, "operation") + " since it was first reported"
		}
		return fmt.Sprintf("open for %v (%s %v%s)", l.ageText(), l.Reason, l.Limit, progress)
	case ReasonMaxStatements:
		if l.OnePlace {
			return fmt.Sprintf("left open, one of %d from one place (max_statements)", l.Count)
		}
		return fmt.Sprintf("prepared %d times and not closed (max_statements)", l.Count)
	case ReasonMaxPools:
		if l.OnePlace {
			return fmt.Sprintf("unused for %v and left open, one of %d from one place (max_pools)", round(l.Idle), l.Count)
		}
		return fmt.Sprintf("opened %d times for one file and not closed (max_pools)", l.Count)
	case ReasonWALLimit:
		keeps := "keeps"
		if l.maybe {
			keeps = "may keep"
		}
		return fmt.Sprintf("%s a WAL of %s from being reset (wal_limit %s, open for %v)", keeps, bytesText(l.Bytes), bytesText(l.LimitBytes), l.ageText())
	case ReasonLeakMemory:
		return fmt.Sprintf("holds %s of memory (leak_memory %s, open for %v)", bytesText(l.Bytes), bytesText(l.LimitBytes), l.ageText())
	case ReasonInPool:
		return fmt.Sprintf("left open in the pool for %v (in_pool)", round(l.Idle))
	case ReasonProven:
		return fmt.Sprintf("never closed and out of reach after %v (proven)", l.ageText())
	default:
		return fmt.Sprintf("suspect after %v (%s)", l.ageText(), l.Reason)
	}
}

// bytesText words a number of bytes.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

func (l Leak) ageText() string { return AgeText(l.Age, l.AgeAtLeast) }

// AgeText words an age as all outputs of the guard do: to the second from a minute on,
// else to 10 ms, which is as true as ages are, and below that to a millisecond.
// atLeast puts "≥ " before it, for an age of which only a bound is known.
func AgeText(d time.Duration, atLeast bool) string {
	if atLeast {
		return "≥ " + round(d).String()
	}
	return round(d).String()
}

// round is AgeText's precision.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= 10*time.Millisecond:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// shorten folds a query into one line of valid text, at most n bytes long.
func shorten(query string, n int) string {
	const more = "…"
	var b []byte
	fits := 0 // bytes of b that leave room for the sign that there is more
	blank := false
	for _, r := range query {
		if unicode.IsSpace(r) {
			blank = len(b) > 0
			continue
		}
		if blank {
			b = append(b, ' ')
		}
		blank = false
		b = utf8.AppendRune(b, r)
		if len(b) > n {
			return strings.TrimRight(string(b[:fits]), " ") + more
		}
		if len(b)+len(more) <= n {
			fits = len(b)
		}
	}
	return string(b)
}
