package leakguard

import (
	"context"
	"database/sql/driver"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// parts cuts a text into its statements with their arguments, so that each can
// be run by itself: then it is known which of them ended or began a
// transaction, and whether that was the program's own statement or SQLite's
// answer to an error. The last part is what is left; it may hold several
// statements if SQLite cannot tell where the next one ends.
type parts struct {
	rest string
	args []driver.NamedValue
	done int // arguments used up
}

// newParts takes the text up to a NUL, as SQLite does.
func newParts(query string, args []driver.NamedValue) parts {
	query, _, _ = strings.Cut(query, "\x00")
	return parts{rest: query, args: args}
}

// next returns the next part, and whether it is the last one.
func (p *parts) next(c *conn) (text string, args []driver.NamedValue, last bool) {
	end, params, ok := c.statementEnd(p.rest)
	left := p.args[min(p.done, len(p.args)):]
	if !ok || len(left) < params {
		return p.rest, left, true // fails, or goes on, as it does without us
	}
	text, p.rest = p.rest[:end], strings.TrimSpace(p.rest[end:])
	args = append(args, left[:params]...)
	// Named arguments may belong to any statement; go-sqlite3 looks for them
	// behind the statement's own.
	for i, a := range p.args {
		if a.Name != "" && (i < p.done || i >= p.done+params) {
			args = append(args, a)
		}
	}
	for i := range args {
		args[i].Ordinal = i + 1
	}
	p.done += params
	return text, args, p.rest == ""
}

// execEach runs the statements of a text one by one.
func (c *conn) execEach(ctx, inner context.Context, guarded bool, query string, args []driver.NamedValue) (driver.Result, error) {
	for p := newParts(query, args); ; {
		text, own, last := p.next(c)
		c.beforePart(text)
		res, err := c.innerExec(inner, text, own)
		err = c.afterPart(ctx, guarded, text, err)
		if err != nil || last {
			return res, err
		}
	}
}

// queryEach runs the statements of a text one by one and returns the rows of
// the last.
func (c *conn) queryEach(ctx, inner context.Context, guarded bool, query string, args []driver.NamedValue) (sqliteRows, error) {
	for p := newParts(query, args); ; {
		text, own, last := p.next(c)
		c.beforePart(text)
		opened, err := c.innerQuery(inner, text, own)
		if err == nil && !last {
			c.rowsClose(opened) // go-sqlite3 takes one step of it, too
		}
		err = c.afterPart(ctx, guarded, text, err)
		if err != nil || last {
			if err != nil && opened != nil {
				c.rowsClose(opened)
			}
			return opened, err
		}
	}
}

// beforePart says whether the statement that comes next may end the
// transaction.
func (c *conn) beforePart(text string) {
	if sqltext.Classify(text)&sqltext.Tx == 0 {
		c.gate.Clear(gate.Ending)
		return
	}
	c.gate.Set(gate.Ending)
	c.gate.Take(0) // an interrupt that is on its way is still for the one before
}

// afterPart follows one statement of a text.
func (c *conn) afterPart(ctx context.Context, guarded bool, text string, err error) error {
	if guarded {
		err = ended(ctx, err)
	}
	class := sqltext.Classify(text)
	if class != 0 || err != nil {
		c.after(ctx, class, text, err)
	}
	if err = c.between(err); err == nil && guarded && class&sqltext.EndsTx == 0 {
		err = ctx.Err()
	}
	return err
}

// between makes an order void, between two statements of a text, if the text
// has ended the transaction that it is for: what comes next is not meant.
func (c *conn) between(err error) error {
	if c.gate.Load()&(gate.Condemned|gate.Interrupt) == 0 {
		return err
	}
	if o := c.order.Load(); o == nil || c.txn.open && o.Resource == c.txn.id {
		return err
	}
	if c.gate.Take(gate.Condemned) == 0 {
		return err
	}
	c.wait.Stop(false)
	return c.carryCondemned(err)
}
