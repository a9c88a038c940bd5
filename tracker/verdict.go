package tracker

import "time"

// The criteria: pure functions over a limit and a record.

// inPoolAfter is how long a transaction begun by SQL text may sit in the pool
// before it is a suspect. It may legally span leases (BEGIN, statements and
// COMMIT by sql.DB.Exec over a pool of one), but not for long.
const inPoolAfter = time.Second

// txTimedOut: the one absolute age. It holds for running work too.
func txTimedOut(p *Policy, r *Record) bool {
	return p.TxTimeout > 0 && r.TransactionLevel > 0 && r.TxAge >= p.TxTimeout
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

// expired: older than MaxLifetime, less the connection's jitter.
func expired(p *Policy, r *Record) bool {
	return p.MaxLifetime > 0 && r.Accesses > 0 && r.Age >= r.lifetime
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
		sooner(p.TxTimeout, r.TxAge)
		if !r.Leased {
			sooner(inPoolAfter, r.Idle)
		}
	}
	if r.Leased || r.TransactionLevel > 0 {
		sooner(p.LeakAfter, r.Idle)
	}
	if !r.Leased {
		sooner(p.MaxIdle, r.Idle)
	}
	sooner(r.lifetime, r.Age)
	return next
}

// period is how often a pool is looked at while nothing is known to be due:
// what opens between two looks is found at the next one, a quarter of its
// limit late at the most.
func (p *Policy) period() time.Duration {
	d := p.CheckInterval
	for _, limit := range []time.Duration{p.LeakAfter, p.TxTimeout, p.MaxIdle, p.MaxLifetime} {
		if limit > 0 {
			d = min(d, limit/4)
		}
	}
	return max(d, time.Millisecond)
}
