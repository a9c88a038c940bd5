package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// panicOf returns what f panics with, as text; "" if it returns.
func panicOf(f func()) (text string) {
	defer func() {
		if r := recover(); r != nil {
			text = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}

// A connector that nobody made says so, in each of its methods.
func TestConnectorNotMade(t *testing.T) {
	for what, c := range map[string]*Connector{"nil": nil, "empty": {}} {
		t.Run(what, func(t *testing.T) {
			want := "leakguard: the Connector is " + what + ": NewConnector makes one"
			_, connect := c.Connect(background)
			for method, err := range map[string]error{
				"Connect": connect, "Close": c.Close(), "SetPolicy": c.SetPolicy(tracker.DefaultPolicy()),
			} {
				if err == nil || err.Error() != want {
					t.Errorf("%s: %v, want %s", method, err, want)
				}
			}
			for method, f := range map[string]func(){
				"Driver": func() { c.Driver() }, "Stats": func() { c.Stats() },
			} {
				if text := panicOf(f); text != want {
					t.Errorf("%s: panic %q, want %s", method, text, want)
				}
			}
			db := sql.OpenDB(c)
			if err := db.Ping(); err == nil || err.Error() != want {
				t.Errorf("Ping of a pool of it: %v", err)
			}
			db.Close()
		})
	}
	var d *Driver
	_, open := d.Open("")
	_, connector := d.OpenConnector("")
	for _, err := range []error{open, connector} {
		if err != errNilDriver {
			t.Errorf("a Driver that is nil: %v", err)
		}
	}
}

// InTx names the argument that is missing, before anything begins.
func TestInTxWithoutArguments(t *testing.T) {
	g := open(t, Config{})
	fn := func(context.Context, *sql.Tx) error { return nil }
	var none context.Context
	for want, err := range map[string]error{
		"ctx": InTx(none, g.DB, nil, fn),
		"db":  InTx(background, nil, nil, fn),
		"fn":  InTx(background, g.DB, nil, nil),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "leakguard: InTx: "+want+" is nil") {
			t.Errorf("without %s: %v", want, err)
		}
	}
	if n := g.opened(); n != 0 {
		t.Errorf("%d connections were opened", n)
	}
	wantErr(t, "InTx", InTx(background, g.DB, nil, func(ctx context.Context, _ *sql.Tx) error {
		if err := InTx(ctx, g.DB, nil, nil); err == nil || !strings.Contains(err.Error(), "fn is nil") {
			t.Errorf("inside another: %v", err)
		}
		return nil
	}), nil)
}

// What is registered is called later, elsewhere: a nil is refused at once.
func TestNilArguments(t *testing.T) {
	var none context.Context
	for want, f := range map[string]func(){
		"OnLeak: f is nil": func() { OnLeak(nil) },
		"nil parent":       func() { Exempt(none, "why") },
	} {
		if text := panicOf(f); !strings.Contains(text, want) {
			t.Errorf("panic %q, want %s", text, want)
		}
	}
	if _, err := NewConnector(Config{Tracker: &tracker.Tracker{}}); err == nil || !strings.Contains(err.Error(), "Tracker is nil or empty") {
		t.Errorf("an empty Tracker: %v", err)
	}
	if c, ok := SQLiteConn(nil); c != nil || ok {
		t.Error("SQLiteConn(nil) found something")
	}
}

// Errors that a test or a fake makes by hand can be printed.
func TestEmptyErrors(t *testing.T) {
	for want, err := range map[string]error{
		"leakguard: transaction was aborted by SQLite, roll it back": &TxAbortedError{},
		"leakguard: connection closed after 0s":                      &ReapedError{},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		if inner := errors.Unwrap(err); inner != nil {
			t.Errorf("%v wraps %v", err, inner)
		}
	}
	unknown := &ReapedError{Leak: tracker.Leak{Kind: 9}}
	if text := unknown.Error(); text != "leakguard: connection closed after 0s" {
		t.Errorf("of an unknown kind: %q", text)
	}
}
