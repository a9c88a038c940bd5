package tracker

import "time"

// The criteria: pure functions over a limit and a record.

// inPoolAfter is how long a transaction begun by SQL text may sit in the pool
// before it is a suspect. It may legally span leases (BEGIN, statements and
// COMMIT by sql.DB.Exec over a pool of one), but not for long.
const inPoolAfter = time.Second

// txOverLimit: the one absolute age. It holds for running work too.
func txOverLimit(p *Policy, r *Record) bool {
	return p.TxLimit > 0 && r.TransactionLevel > 0 && r.TxAge >= p.TxLimit
}

// txTimedOut: a transaction is older than TxTimeout. Old is not idle: it may be
// at work.
func txTimedOut(p *Policy, r *Record) bool {
	return p.TxTimeout > 0 && r.TransactionLevel > 0 && r.TxAge >= p.TxTimeout
}

// txRests: such a transaction does nothing any more.
func txRests(p *Policy, r *Record) bool { return !r.Busy && r.Idle >= p.rest() }

// rest is how long a transaction beyond TxTimeout may do nothing.
func (p *Policy) rest() time.Duration { return p.TxTimeout / 10 }

// How long a lease may rest while somebody waits for a lock behind it, before it is
// reported; and how often the guard looks at the least, to see in time that it does.
const (
	restBefore = 5 * time.Second
	restLook   = 2500 * time.Millisecond
)

// restsLong: out of the pool, and nothing has moved for long enough to be told of.
func restsLong(p *Policy, r *Record, blocks bool) bool {
	limit := p.ReportAfter
	if blocks {
		limit = min(limit, restBefore)
	}
	return limit > 0 && r.Leased && !r.Busy && r.Idle >= limit
}

// leaseForgotten: leased, and nothing has moved for LeakAfter. A running
// statement is activity, however long it runs.
func leaseForgotten(p *Policy, r *Record) bool {
	return r.Leased && !r.Busy && p.LeakAfter > 0 && r.Idle >= p.LeakAfter
}

// txInPool: a transaction by SQL text whose connection sits in the pool.
func txInPool(r *Record) bool {
	return !r.Leased && !r.Busy && r.TransactionLevel > 0 && r.Idle >= inPoolAfter
}

// txInPoolForgotten: it has sat there for as long as a lease may idle.
func txInPoolForgotten(p *Policy, r *Record) bool {
	return txInPool(r) && p.LeakAfter > 0 && r.Idle >= p.LeakAfter
}

// idleTooLong: unused in the pool for MaxIdle. A connection that never had a
// lease may be out all the same: database/sql does not say when it hands a
// fresh connection from its opener to somebody who waits.
func idleTooLong(p *Policy, r *Record) bool {
	return !r.Leased && !r.Busy && r.Accesses > 0 && r.TransactionLevel == 0 && p.MaxIdle > 0 && r.Idle >= p.MaxIdle
}

// expired: older, since it was opened or refreshed, than MaxLifetime, less the
// connection's jitter.
func expired(p *Policy, r *Record) bool {
	return p.MaxLifetime > 0 && r.Accesses > 0 && r.expiring >= r.lifetime
}

// tooManyAccesses: as many leases as MaxAccess since it was opened or refreshed.
// Where connections are only refreshed for that, check-in does so.
func tooManyAccesses(p *Policy, r *Record) bool {
	return p.Expire == Close && p.MaxAccess > 0 && r.Accesses-r.renewed >= p.MaxAccess
}

// tooManyStatements: the same text is open too often.
func tooManyStatements(p *Policy, r *Record) bool {
	return p.MaxStatements > 0 && int64(r.statements) >= p.MaxStatements
}

// rowsForgotten: the connection moves, but these rows have not for LeakAfter.
func rowsForgotten(p *Policy, idle time.Duration) bool {
	return p.LeakAfter > 0 && idle >= p.LeakAfter
}

// nextDue returns the shortest time after which a record could break a limit
// if nothing moves.
func nextDue(p *Policy, r *Record) time.Duration {
	next := p.CheckInterval
	sooner := func(limit, age time.Duration) {
		if limit > 0 && limit > age {
			next = min(next, limit-age)
		}
	}
	if r.TransactionLevel > 0 {
		sooner(p.TxLimit, r.TxAge)
		sooner(p.TxTimeout, r.TxAge)
		if txTimedOut(p, r) { // watched closely: it is to be seen to rest
			look := p.rest() / 4
			if left := p.rest() - r.Idle; left > 0 {
				look = min(look, left)
			}
			// What has been in one operation for long may be for as long again.
			look = max(look, min(r.running/16, nudgeSlowly))
			next = min(next, max(look, minRest))
		}
		if !r.Leased {
			sooner(inPoolAfter, r.Idle)
		}
	}
	if r.Leased || r.TransactionLevel > 0 {
		sooner(p.LeakAfter, r.Idle)
	}
	if r.Leased && p.ReportAfter > 0 {
		sooner(p.ReportAfter, r.Idle)
		sooner(restBefore, r.Idle)
	}
	if !r.Leased {
		sooner(p.MaxIdle, r.Idle)
	}
	sooner(r.lifetime, r.expiring)
	return next
}

// minRest is how often a transaction beyond TxTimeout is looked at, at the most.
const minRest = 10 * time.Millisecond

// period is how often a pool is looked at while nothing is known to be due:
// what opens between two looks is found at the next one, a quarter of its
// limit late at the most.
func (p *Policy) period() time.Duration {
	d := p.confirm()
	if p.ReportAfter > 0 {
		d = min(d, restLook, p.ReportAfter/4)
	}
	return max(d, time.Millisecond)
}

// confirm is how long a suspect for LeakAfter goes on to rest before it is undone.
func (p *Policy) confirm() time.Duration {
	d := p.CheckInterval
	for _, limit := range []time.Duration{p.LeakAfter, p.TxTimeout, p.TxLimit, p.MaxIdle, p.MaxLifetime} {
		if limit > 0 {
			d = min(d, limit/4)
		}
	}
	return d
}
