package leakguard

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var (
	// ErrReaped is what errors.Is finds in every error of a resource that the
	// guard undid.
	ErrReaped = errors.New("leakguard: reaped")

	// ErrTxAborted is what errors.Is finds in the errors of a transaction that
	// SQLite itself rolled back: after an interrupt, a full disk, an I/O error,
	// no memory, ON CONFLICT ROLLBACK. Every statement of the transaction
	// fails with it until the program's own Rollback. See
	// https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction.
	ErrTxAborted = errors.New("leakguard: transaction aborted by SQLite")
)

var (
	errStmtClosed = errors.New("leakguard: statement is closed")
	errConnClosed = errors.New("leakguard: connection is closed")
)

var (
	errNilConnector   = errors.New("leakguard: the Connector is nil: NewConnector makes one")
	errEmptyConnector = errors.New("leakguard: the Connector is empty: NewConnector makes one")
	errNilDriver      = errors.New("leakguard: the Driver is nil: want a &Driver{}")
)

// errBusy is the answer of a connection whose last call has not come back.
var errBusy = errors.New("leakguard: connection is lost: a call into SQLite has not come back, " +
	"because a Go function called by SQL panicked, or two goroutines use one driver connection")

// ReapedError says what the guard undid, when and why. errors.Is(err,
// ErrReaped) holds.
type ReapedError struct {
	// Leak describes the resource as it was found.
	Leak tracker.Leak
	// After is the age at which it was undone.
	After time.Duration
}

// Error names what was undone, when, why, and where it was opened:
//
//	leakguard: transaction rolled back after 10m0s (tx_timeout 10m): opened at billing/invoice.go:88
func (e *ReapedError) Error() string {
	var what string
	switch e.Leak.Kind {
	case tracker.KindTransaction:
		what = "transaction rolled back"
	case tracker.KindRows:
		what = "rows closed"
	case tracker.KindStatement:
		what = "statement closed"
	default:
		what = "connection closed"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "leakguard: %s after %v", what, roundAge(e.After))
	switch {
	case e.Leak.Reason == tracker.ReasonLeakAfter:
		fmt.Fprintf(&b, ", %v without activity (leak_after %s)", roundAge(e.Leak.Idle), dsnFormatDuration(e.Leak.Limit))
	case e.Leak.Reason == tracker.ReasonInPool:
		b.WriteString(", left open in the pool")
	case e.Leak.Limit > 0:
		fmt.Fprintf(&b, " (%s %s)", e.Leak.Reason, dsnFormatDuration(e.Leak.Limit))
	case e.Leak.Reason != "":
		fmt.Fprintf(&b, " (%s)", e.Leak.Reason)
	}
	if len(e.Leak.Stack) > 0 {
		fmt.Fprintf(&b, ": opened at %s", e.Leak.Site())
		if through := e.Leak.Stack.Through(); through != "" {
			fmt.Fprintf(&b, " through %s", through)
		}
	}
	return b.String()
}

// Is reports whether target is ErrReaped.
func (e *ReapedError) Is(target error) bool { return target == ErrReaped }

// TxAbortedError says why SQLite rolled a transaction back. errors.Is(err,
// ErrTxAborted) holds, and Unwrap gives the error of the statement that SQLite
// failed, for example a sqlite3.Error. If that ran on the raw connection (see
// SQLiteConn), Unwrap gives an error that says so; it wraps the sqlite3.Error, without
// its text, if SQLite still had the result code.
type TxAbortedError struct {
	Cause error
}

// Error tells what to do, and why if there is a Cause, without what its message has in
// quotes: that may be the program's data.
func (e *TxAbortedError) Error() string {
	text := "leakguard: transaction was aborted by SQLite, roll it back"
	if e.Cause != nil {
		text += ": " + sqltext.Unquoted(e.Cause.Error())
	}
	return text
}

// Unwrap returns the error that the statement failed with.
func (e *TxAbortedError) Unwrap() error { return e.Cause }

// Is reports whether target is ErrTxAborted.
func (e *TxAbortedError) Is(target error) bool { return target == ErrTxAborted }

// roundAge keeps an age readable.
func roundAge(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
