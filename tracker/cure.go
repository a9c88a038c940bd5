package tracker

// cures say what to do at the line that opened a resource.
var cures = map[Kind]string{
	KindConnection:  "defer conn.Close() at this line",
	KindTransaction: "defer tx.Rollback() at this line; after a Commit it does nothing",
	KindStatement:   "close the statement, or prepare it once",
	KindRows:        "defer rows.Close() at this line",
	KindPool:        "open one sql.DB for the file and share it, or close each",
}

// Cure says what to do about the leak at its Site, in a few words.
func (l Leak) Cure() string {
	switch {
	case l.Kind == KindPool && l.OnePlace:
		return "close each sql.DB when it is done with, or open one and share it"
	case l.Kind == KindConnection && l.Reason == ReasonWALLimit: // only by Raw
		return "close the rows, statements and backups that were opened on the raw connection here"
	case l.Reason == ReasonPanic:
		return "recover in the Go function that SQL calls; only a restart frees the connection"
	}
	return cures[l.Kind]
}

// outcome says what became of a leak, or will.
func (e Event) outcome() string {
	l := e.Leak
	switch {
	case e.Type == EventReaped && l.Kind == KindTransaction:
		return "rolled back"
	case e.Type == EventReaped:
		return "closed"
	case e.Type == EventRecovered:
		return "came back by itself"
	case e.Type == EventResting:
		return "nothing is undone before leak_after"
	case l.Reason == ReasonPanic:
		return "reported only: a call never came back from SQLite, so nobody may touch the connection"
	case l.Exempt != "":
		return "reported only: exempt"
	case l.Kept != "":
		return "reported only: " + l.Kept
	case e.pool.Mode() != Enforce:
		return "reported only: mode " + e.pool.Mode().String()
	case l.Reason == ReasonProven:
		return "closed as soon as its connection is free"
	case l.Reason == ReasonTxTimeout:
		return "rolled back as soon as it rests"
	case l.Reason == ReasonInPool, l.Reason == ReasonWALLimit, l.Reason == ReasonLeakMemory:
		return "reported only, until it is left for leak_after or rests beyond tx_timeout"
	case l.Reason == ReasonMaxStatements, l.Kind == KindPool:
		return "reported only"
	case l.Kind == KindConnection:
		return "reported only: it holds nothing but its place in the pool"
	}
	return "undone at the next check, unless it moves"
}
