/* The gate of one connection, for spin (https://spinroot.com): its owner, the
 * reaper with its carriers, the watchdog, a report that reads the record, and the
 * other connections of a shared cache. README.md says what is checked and what is
 * left out. The Go function that a part follows stands above it.
 *
 * Loading the word, testing it and swapping it until that succeeds is one step
 * here: what is decided depends on the swapped value alone. Whatever else others
 * can see is a step of its own.
 *
 * Switches (check has the runs): OPS, TXS, ORDERS, GENS, OTHERS, VISITS are
 * bounds. These add what takes part: WATCHDOG and ATTEND, READER, SHARED (another
 * connection of the cache), UNTIL (owners that stop waiting), RAW, TEXTS, RESTING
 * (orders that hold only while nothing moves), LEASES (those for a lease, and
 * giving up), AGAIN (a second order for a transaction), CLOSE (beside an operation
 * in flight), LIVE (the never claim). OLD_… brings a fault of old back, M_… leaves
 * a line out.
 */

#ifndef OPS
#define OPS 3      /* operations of the owner before Close */
#endif
#ifndef TXS
#define TXS 1      /* transactions that may begin */
#endif
#ifndef ORDERS
#define ORDERS 1
#endif
#ifndef GENS
#define GENS 16    /* generations, which really are 2^48 */
#endif
#ifndef OTHERS
#define OTHERS 1   /* operations on the other connection of a shared cache */
#endif
#ifndef VISITS
#define VISITS 1   /* of the monitor, there */
#endif
#ifdef SHARED
#define CONNS 2    /* the connection, and another one of the cache */
#else
#define CONNS 1
#endif

/* internal/gate/word.go, compared with it by TestBits */
#define BUSY      1
#define REAPING   2
#define INTERRUPT 4
#define CONDEMNED 8
#define TOMBED    16
#define DEAD      32
#define WATCHED   64
#define BESIDE    128
#define STOPPED   256
#define ATTENDED  512
#define ENDING    1024
#define RECORDING 2048
#define READING   4096
#define SHARING   8192
#define AWAITED   16384
#define CLOSING   32768
#define OFONE     (BUSY | WATCHED | BESIDE | ENDING | RECORDING)
#define FLAGS     65535
#define OPERATION 65536

#define GENERATION(w) ((w) / OPERATION)
#define NEXT(w) (((w) & FLAGS) + ((GENERATION(w) + 1) % GENS) * OPERATION)

int W[CONNS];            /* the activity words */
byte turn[CONNS];        /* the channel that owners wait for: any other is closed */
bool ownerIn[CONNS];     /* ghosts: who is inside */
bool reaperIn[CONNS];
#ifdef SHARED
int C;                   /* Shared.word */
byte turnC;
#endif

/* conn, guarded by the gate */
bool txOpen; byte txId;  /* txn */
byte tomb; byte tombId;  /* whose: */
#define NOBODYS 0
#define SQLITES 1
#define GUARDS 2
byte failed;             /* txn.failed: here the transaction itself, forgotten at the end of the operation */
bool leased = 1;
bool raw; byte order; byte confirmed; bool shielded;   /* confirmed: conn.meant */
bool unbegun;

/* SQLite */
byte sqlTx;              /* the open transaction, 0 in autocommit */
byte row[2];             /* open rows: 0 none, else 1 + the operation whose context they end with */
bool ofTx[2];            /* opened in the transaction that is open */
bool intr;               /* sqlite3_interrupt: forgotten by a statement that begins while none is active */
bool stop;               /* capi.Wait.Stop */
bool progress;           /* the progress handler looks at it */
bool running; bool stuck; bool dying; bool closed;     /* dying: conn.die, and h.close is to come */
byte intrOp; byte intrOrder; /* ghosts: the operation or the order that is meant */
byte stopOp; byte stopOrder;
#define ROWS (row[0] != 0 || row[1] != 0)

/* the record, in two fields so that a torn reading shows */
byte recTx; byte recTx2; bool recLeased = 1; bool mu;
byte taken;              /* watch.taken of the transaction */

/* what became of orders and transactions: ghosts, but for what an order says */
#define S_TX 0
#define S_LEASE 1
#define S_GIVEUP 2
byte orders; byte scope[ORDERS + 1]; byte meant[ORDERS + 1]; bool absolute[ORDERS + 1];
byte atGen[ORDERS + 1]; byte atOp[ORDERS + 1];
byte settled[ORDERS + 1];
#define VOID 1
#define DONE 2
byte txs; byte fate[TXS + 1];
#define COMMITTED 1
#define ENDED 2          /* by the owner's ROLLBACK */
#define UNDONE 3         /* by the guard */
#define ABORTED 4        /* by SQLite */
#define FAILED 5         /* its COMMIT failed */
byte progTx;             /* what the program believes to be in */
byte hit;                /* the order whose stop or interrupt this operation has met */
byte opno;               /* the operations that have entered */
bool ownerDone;
byte users;              /* goroutines of the program that have work to do */
bool struck;             /* reaper.struck */

/* the watchdog */
byte announced;          /* watch.done, by the operation that it belongs to */
bool over[OPS + 6];      /* that operation's context is over */
bool watchMu; byte attendsTo; bool dismissed[OPS + 6]; byte attenders;

/* ------------------------------------------------------------ the record */

/* Word.Record, Recorded, tracker.Conn.Record, Recorded */
#define RECORD   atomic { (W[0] & (RECORDING | READING)) == 0 -> W[0] = W[0] | RECORDING }
#define RECORDED atomic { W[0] = W[0] & ~RECORDING }

/* what is written between: another reader than the reaper sees each step of it */
#ifdef READER
inline write(id) { recTx = id; recTx2 = id }
#else
inline write(id) { d_step { recTx = id; recTx2 = id } }
#endif

/* Word.Read, TryRead, EndRead, tracker.Conn.lock, unlock */
inline lock() {
	atomic { !mu -> mu = 1 };
	atomic { (W[0] & RECORDING) == 0 -> W[0] = W[0] | READING }
}
inline unlock() { d_step { W[0] = W[0] & ~READING; mu = 0 } }

/* tracker.Conn.Transaction */
inline transaction(id) { lock(); id = recTx; assert(recTx == recTx2); unlock() }

/* tracker.Conn.TryTransaction, tryLock: whoever writes the record may wait for the
 * interrupt bit, which the caller holds */
#ifdef M_LOCK_IN_HIT
inline tryTransaction(id) { transaction(id) }
#else
inline tryTransaction(id) {
	id = 0;
	if
	:: atomic { !mu -> mu = 1 };
		if
		:: atomic { (W[0] & RECORDING) == 0 -> W[0] = W[0] | READING };
			id = recTx; assert(recTx == recTx2); unlock()
		:: atomic { (W[0] & RECORDING) != 0 -> mu = 0 }
		fi
	:: mu
	fi
}
#endif

/* tracker.Conn.Settle */
inline settle(o, out) {
	lock();
	d_step {
		assert(settled[o] == 0);                                   /* (b) once */
		settled[o] = out;
		if
		:: out == DONE && meant[o] != 0 -> assert(fate[meant[o]] >= UNDONE) /* (c) not what was committed */
		:: else
		fi;
		if :: out == VOID && taken == meant[o] -> taken = 0 :: else fi
	};
	unlock()
}

/* ---------------------------------------------------------------- SQLite */

#define SELECT 0
#define INSERT 1
#define CONTROL 2        /* BEGIN, COMMIT, ROLLBACK */
#define OK 0
#define GAVEUP_BUSY 1
#define GAVEUP_INTERRUPT 2
#define OVER 3           /* the context's error */
#define REAPED 4
#define REFUSED 5

inline forgetInterrupt() { if :: !ROWS -> intr = 0; intrOp = 0; intrOrder = 0 :: else fi }

/* One statement, by the owner. It ends well, meets a lock, or was told to stop. */
inline sql(kind, res) {
	d_step {
		assert(ownerIn[0] && !dying && !closed);
		assert(!(W[0] & (RECORDING | REAPING)));
		forgetInterrupt(); running = 1; sticks = intr
	};
#ifdef LIVE
	if /* one that goes on until it is told to stop */
	:: kind != CONTROL && txOpen -> stuck = 1; atomic { intr || (progress && stop) -> stuck = 0 }
	:: skip
	fi;
#endif
	atomic {
		running = 0;
		if
		:: intr -> res = GAVEUP_INTERRUPT;
			if :: intrOp != 0 -> assert(intrOp == opno) :: else -> hit = intrOrder fi /* (a) nobody else's */
		:: !sticks && kind != CONTROL && progress && stop -> res = GAVEUP_INTERRUPT;
			if :: stopOp != 0 -> assert(stopOp == opno) :: else -> hit = stopOrder fi
		:: !sticks -> res = OK
		:: !sticks && kind != SELECT -> res = GAVEUP_BUSY
		fi
	}
}

/* sqlite3_interrupt, and capi.Wait.Stop */
inline interruptSQLite(op, o) { d_step { assert(!closed); intr = 1; intrOp = op; intrOrder = o } }
inline tellStop(op, o) { d_step { stop = 1; stopOp = op; stopOrder = o } }
inline untellStop() { d_step { stop = 0; stopOp = 0; stopOrder = 0 } }

/* conn.killRows */
inline killRows() { d_step { row[0] = 0; row[1] = 0; ofTx[0] = 0; ofTx[1] = 0 } }

/* ------------------------------------------------- the gate, owner's side */

inline ended(t) { t = (t + 1) % 8 }                  /* turn.end: the channel is closed */

/* turn.prepare, next, await: the reaper makes the channel before it takes the word. The
 * owner looks it up before it marks the word: if its turn is over by then, it is closed. */
#ifdef M_NO_AWAITED
#define MARKED(word) (word)
#else
#define MARKED(word) ((word) | AWAITED)
#endif
inline await(word, t) {
#ifndef M_WORD_FIRST
	k = t;
#endif
	if
	:: atomic { (word & REAPING) != 0 -> word = MARKED(word) };
#ifdef M_WORD_FIRST
		k = t;
#endif
		if
		:: t != k
#ifdef UNTIL
		:: gaveUp = 1
#endif
		fi
	:: (word & REAPING) == 0
	fi
}

/* conn.met, metRaw, sync: the raw connection is out, and the program may have ended the
 * transaction there, or have met an error that rolled it back */
#ifdef RAW
inline sync() {
	if
	:: txOpen && sqlTx == 0 ->
		if
		:: fate[txId] == ABORTED && !((stop || intr) && !raw) -> abort(); f = f | TOMBED
		:: else -> assert(fate[txId] != ABORTED); endTx(); progTx = 0   /* (c) half of it goes on in autocommit */
		fi
	:: else
	fi
}
inline met() {
	if
	:: raw && !(f & DEAD) && !(W[0] & RECORDING) -> sync()
	:: else
	fi
}
#else
inline met() { skip }
#endif

inline entered(c) { ownerIn[c] = 1; if :: c == 0 -> opno++ :: else fi; assert(!reaperIn[c]) }

/* Gate.Enter, EnterUntil, EnterAs, EnterEnding, enterSlow, conn.enter, enterFor,
 * Shared.enter. What insist does is what comes of not giving up. With gaveUp
 * nothing has begun. Busy is met beside Close only: database/sql calls one
 * operation after the other. */
inline enter(c, bits) {
	gaveUp = 0;
#ifdef SHARED
	do
	:: atomic { (C & REAPING) == 0 -> C = C + OPERATION; break }
	:: (C & REAPING) != 0 -> await(C, turnC); if :: gaveUp -> break :: else fi
	od;
	if
	:: gaveUp
	:: else ->
		atomic { !((bits) & RECORDING && W[c] & READING) ->
			assert(!(W[c] & (BUSY | REAPING)));
			f = W[c] & (TOMBED | DEAD); W[c] = W[c] | (bits); entered(c) }
	fi
#else
	do
	:: atomic { (W[c] & (BUSY | REAPING)) == 0 && !((bits) & RECORDING && W[c] & READING) ->
		f = W[c] & (TOMBED | DEAD); W[c] = W[c] | (bits); entered(c); break }
	:: (W[c] & REAPING) != 0 -> await(W[c], turn[c]); if :: gaveUp -> break :: else fi
#ifdef CLOSE
	:: (W[c] & BUSY) != 0 -> gaveUp = 1; break         /* errBusy */
#endif
	od;
	if :: !gaveUp && c == 0 -> met() :: else fi
#endif
}

#ifdef M_NO_WAIT
#define WAIT_FOR_INTERRUPT skip
#define HELD_BY_INTERRUPT 0
#else
#define WAIT_FOR_INTERRUPT (W[0] & INTERRUPT) == 0
#define HELD_BY_INTERRUPT (W[0] & INTERRUPT)
#endif

/* Gate.Take */
inline take(which) { bits = W[0] & (which); W[0] = W[0] & ~bits; WAIT_FOR_INTERRUPT }

/* conn.endedTx, tracker.Conn.EndedTx leave the record open for an operation that leaves
 * at once; endTx, bury, exhume */
inline endedTx() { d_step { txOpen = 0; ofTx[0] = 0; ofTx[1] = 0 }; RECORD; write(0) }
inline endTx() { endedTx(); RECORDED }
inline bury(whose) { d_step { tomb = whose; tombId = txId; W[0] = W[0] | TOMBED }; endTx() }
inline exhume() { d_step { tomb = NOBODYS; W[0] = W[0] & ~TOMBED } }

/* conn.rollbackBy, by the owner: its ROLLBACK must not be interrupted */
inline rollbackByOwner() {
#ifndef M_NO_KILL
	killRows();
#endif
	d_step { assert(!closed); forgetInterrupt(); running = 1 };
	d_step {
		running = 0;
		assert(!intr);                                             /* (a) */
		assert(sqlTx == txId || sqlTx == 0);                       /* (c) nothing else's */
		if :: sqlTx != 0 -> fate[sqlTx] = UNDONE; sqlTx = 0 :: else fi
	};
	bury(GUARDS)
}

/* conn.carryCondemned, reapedBy */
inline carryCondemned() {
	atomic { co = order; order = 0 };
	if
	:: co == 0
	:: else ->
#ifndef M_NO_SHIELD
		shielded = 1;
#endif
		WAIT_FOR_INTERRUPT;
		if
		:: raw -> settle(co, VOID)
		:: !raw && txOpen && txId == meant[co] ->
			rollbackByOwner(); settle(co, DONE); err = REAPED
		:: !raw && !(txOpen && txId == meant[co]) && tomb == SQLITES && tombId == meant[co] && err != OK ->
			tomb = GUARDS; killRows(); settle(co, DONE); err = REAPED
#if defined(M_NO_FAILED) || defined(OLD_V1)
		:: !raw && !txOpen && tomb == NOBODYS && (err == GAVEUP_BUSY || err == GAVEUP_INTERRUPT) ->
#else
		:: !raw && !txOpen && tomb == NOBODYS && failed == meant[co] && (err == GAVEUP_BUSY || err == GAVEUP_INTERRUPT) ->
#endif
			settle(co, DONE); err = REAPED
		:: else -> settle(co, VOID)
		fi;
		co = 0; shielded = 0
	fi
}

/* conn.unwatch, endRows */
inline unwatch(b) {
	if
	:: (b) & ATTENDED ->                                       /* watch.dismiss */
		atomic { !watchMu -> watchMu = 1 };
		assert(attendsTo != 0 && !dismissed[attendsTo]);
		dismissed[attendsTo] = 1; attendsTo = 0; watchMu = 0
	:: else
	fi;
	if
	:: (b) & STOPPED ->
		untellStop();
#ifndef OLD_V3
		d_step {
			if :: row[0] > 1 && over[row[0] - 1] -> row[0] = 0; ofTx[0] = 0 :: else fi;
			if :: row[1] > 1 && over[row[1] - 1] -> row[1] = 0; ofTx[1] = 0 :: else fi
		}
#endif
	:: else
	fi
}

/* conn.shut */
inline shut() {
	if
	:: W[0] & DEAD
	:: else ->
		killRows();
		if :: txOpen -> endTx() :: else fi;
		W[0] = W[0] | DEAD;
#ifndef M_NO_TAKE_IN_SHUT
		WAIT_FOR_INTERRUPT;
#endif
		d_step {
			assert(!dying && !closed && !running);             /* (f) */
			if :: sqlTx != 0 -> fate[sqlTx] = ENDED; sqlTx = 0 :: else fi;
			closed = 1
		}
	fi
}

/* conn.seeTo */
inline seeTo() {
#ifdef OLD_V6
	W[0] = W[0] & ~(WATCHED | BESIDE | RECORDING);
#else
	W[0] = W[0] & ~(WATCHED | RECORDING);
#endif
	take(CONDEMNED | STOPPED | ATTENDED | CLOSING); lb = bits;
	unwatch(lb);
	if :: lb & CONDEMNED -> untellStop(); carryCondemned() :: else fi;
	if :: lb & CLOSING -> shut() :: else fi
}

/* Shared.leave */
#ifdef SHARED
#define LEAVE_CACHE C = C - OPERATION
#else
#define LEAVE_CACHE skip
#endif

/* what holds behind each operation */
inline left(c) {
	W[c] = NEXT(W[c] & ~OFONE); ownerIn[c] = 0;
	if
	:: c == 0 ->
		assert(!stop);                                             /* (a) nothing sticks */
		assert(!(intr && ROWS));
		assert(hit == 0 || settled[hit] == DONE);                  /* who was stopped for an order was undone for it */
		assert(co == 0);
		hit = 0; failed = 0
	:: else
	fi
}

/* what is of no use behind an operation makes no two states of one */
inline forget() {
	d_step {
		bits = 0; lb = 0; f = 0; k = 0; i = 0; watching = 0;
#ifdef WATCHDOG
		if :: row[0] != 1 + opno && row[1] != 1 + opno -> over[opno] = 0 :: else fi;
		if :: !ROWS -> over[opno - 1] = 0; if :: opno > 1 -> over[opno - 2] = 0 :: else fi :: else fi
#endif
	}
}

/* Gate.Leave, Left, leaveSlow, conn.leave, leaveBusy */
inline leave() {
	do
	:: atomic { HELD_BY_INTERRUPT == 0 && (W[0] & (CONDEMNED | STOPPED | ATTENDED | CLOSING)) == 0 -> left(0); break }
	:: atomic { HELD_BY_INTERRUPT == 0 && (W[0] & (CONDEMNED | STOPPED | ATTENDED | CLOSING)) != 0 }; seeTo()
	od;
	LEAVE_CACHE;
	forget()
}

/* ------------------------------------------------------ the owner's work */

/* conn.abort */
inline abort() {
	d_step {
		if :: ofTx[0] -> row[0] = 0; ofTx[0] = 0 :: else fi;
		if :: ofTx[1] -> row[1] = 0; ofTx[1] = 0 :: else fi
	};
	bury(SQLITES)
}

/* conn.after: autocommit is asked behind every error inside a transaction */
inline after() {
	if
	:: err != OK && txOpen && sqlTx == 0 -> abort()
	:: else
	fi
}

/* conn.mayEnd, beforePart */
inline mayEnd() { W[0] = W[0] | ENDING; WAIT_FOR_INTERRUPT }

/* conn.between */
inline between() {
#ifndef M_NO_BETWEEN
	if
	:: (W[0] & (CONDEMNED | INTERRUPT)) == 0
	:: else ->
		if
		:: order == 0 || (txOpen && meant[order] == txId)
		:: else ->
			take(CONDEMNED);
			if :: bits == 0 :: else -> untellStop(); carryCondemned() fi
		fi
	fi
#else
	skip
#endif
}

/* conn.arm, armDone, spare, disarm. own: how many of the open rows are the operation's */
inline arm(own) {
	if
#ifdef WATCHDOG
	:: atomic { !watchMu -> announced = opno };
		if
		:: (row[0] != 0) + (row[1] != 0) > own -> progress = 1; W[0] = W[0] | WATCHED | BESIDE
		:: else -> W[0] = W[0] | WATCHED
		fi;
		watching = 1;
		if
		:: over[opno] ->                                   /* ctx.Err */
			err = OVER;
#ifdef OLD_V6
			W[0] = W[0] & ~(WATCHED | BESIDE); take(STOPPED | ATTENDED); lb = bits; unwatch(lb)
#else
			W[0] = W[0] & ~WATCHED; take(STOPPED | ATTENDED); lb = bits; unwatch(lb); W[0] = W[0] & ~BESIDE
#endif
		:: else
		fi
#endif
	:: skip                                            /* a context that cannot end */
	fi
}

/* ended(ctx, err) */
inline endedBy() { if :: watching && err != OK && over[opno] -> err = OVER :: else fi }

/* a statement in or outside a transaction, and its rows */
inline statement(kind) {
	assert(progTx == 0 || inText || sqlTx == progTx);              /* (c) nothing of it runs in autocommit */
	sql(kind, res);
	err = res;
	d_step { if :: res == GAVEUP_INTERRUPT && kind == INSERT && sqlTx != 0 -> fate[sqlTx] = ABORTED; sqlTx = 0 :: else fi };
	endedBy();
	after();
	if
	:: err == OK && kind == SELECT && (row[0] == 0 || row[1] == 0) ->
		if
		:: watching && over[opno] -> err = OVER            /* conn.begun closes them */
		:: else -> d_step {
			i = (row[0] == 0 -> 0 : 1);
			row[i] = 1 + (watching -> opno : 0); ofTx[i] = txOpen
		}
		fi
	:: else
	fi
}

/* conn.refuse */
#define REFUSES (f & (TOMBED | DEAD))

/* conn.beganTx, tracker.Conn.BeganTx, which leave the record open as endedTx does, and
 * beginTx */
inline beganTx() {
	d_step { txs++; sqlTx = txs; txId = txs; txOpen = 1; progTx = txs };
	RECORD; write(txId)
}
inline beginTx() { beganTx(); RECORDED }

/* tx.end behind a COMMIT or ROLLBACK that failed: the transaction is over all the same */
inline endFailed() {
	failed = txId;
	if :: sqlTx != 0 -> killRows(); d_step { intr = 0; intrOp = 0; intrOrder = 0; fate[sqlTx] = FAILED; sqlTx = 0 } :: else fi
}

inline goneHome() { atomic { users--; if :: users == 0 -> ownerDone = 1 :: else fi } }

proctype Owner() {
	int bits; int f; int lb;
	byte err, res, co, n, part, k, i; bool watching, sticks, inText, gaveUp, refused;
	do
	:: n < OPS && leased ->
		d_step { n++; err = OK; res = OK; inText = 0; part = 0; sticks = 0 };
		if
		/* conn.BeginTx */
		:: progTx == 0 && txs < TXS ->
			enter(0, BUSY);
			if
			:: gaveUp
			:: else ->
				if
				:: REFUSES -> err = REFUSED
				:: else ->
					arm(0);
					if
					:: err != OK
					:: else -> sql(CONTROL, res); err = res; endedBy(); if :: res == OK -> beganTx() :: else fi
					fi
				fi;
				leave()
			fi
		/* conn.QueryContext, stmt.QueryContext, conn.ExecContext … */
		:: enter(0, BUSY);
			if
			:: gaveUp
			:: else ->
				if
				:: REFUSES -> err = REFUSED
				:: else ->
					arm(0);
					if
					:: err != OK
					:: else -> if :: statement(SELECT) :: statement(INSERT) fi
					fi
				fi;
				leave()
			fi
		/* rows.Close */
		:: ROWS -> enter(0, BUSY);
			if
			:: gaveUp
			:: else -> d_step { if :: row[1] != 0 -> row[1] = 0; ofTx[1] = 0 :: else -> row[0] = 0; ofTx[0] = 0 fi }; leave()
			fi
#ifdef WATCHDOG
		/* rows.Next, nextWatched */
		:: row[0] > 1 || row[1] > 1 -> enter(0, BUSY);
			if
			:: gaveUp
			:: else ->
				i = (row[0] > 1 -> 0 : 1);
				if
				:: row[i] <= 1                             /* killed meanwhile */
				:: else ->
					d_step { over[opno] = over[row[i] - 1]; row[i] = 1 + opno };
					arm(1);
					if
					:: err != OK
					:: else ->
						sql(SELECT, res); err = res;
						if :: res == GAVEUP_INTERRUPT -> d_step { row[i] = 0; ofTx[i] = 0 } :: else fi  /* halted: no longer active */
						if :: watching && over[opno] -> err = OVER :: else fi;
						after()
					fi
				fi;
				leave()
			fi
#endif
		/* tx.Commit */
		:: progTx != 0 ->
			enter(0, BUSY | ENDING);
			if
			:: gaveUp
			:: else ->
				if
				:: f & DEAD -> err = REFUSED
				:: (f & TOMBED) && !(f & DEAD) -> err = REFUSED; assert(sqlTx == 0); exhume()
				:: else ->
					sql(CONTROL, res); err = res;
					if
					:: res == OK -> d_step { assert(sqlTx == progTx); fate[sqlTx] = COMMITTED; sqlTx = 0 }
					:: else ->
						sql(CONTROL, res);                     /* txStmts.commit rolls back */
						if :: res != GAVEUP_INTERRUPT -> d_step { if :: sqlTx != 0 -> fate[sqlTx] = FAILED; sqlTx = 0 :: else fi } :: else fi;
						endFailed()
					fi;
					if :: txOpen -> endedTx() :: else fi
				fi;
				progTx = 0;
				leave()
			fi
		/* tx.Rollback */
		:: progTx != 0 ->
			enter(0, BUSY | ENDING);
			if
			:: gaveUp
			:: else ->
				if
				:: f & DEAD -> err = REFUSED                       /* or nil, if it was reaped with its lease */
				:: (f & TOMBED) && !(f & DEAD) -> assert(sqlTx == 0); exhume()
				:: else ->
					sql(CONTROL, res); err = (res == GAVEUP_INTERRUPT -> res : OK);
					if
					:: res != GAVEUP_INTERRUPT -> d_step { fate[sqlTx] = ENDED; sqlTx = 0 }
					:: else -> endFailed()
					fi;
					if :: txOpen -> endedTx() :: else fi
				fi;
				progTx = 0;
				leave()
			fi
#ifdef TEXTS
		/* conn.ExecContext of a text of two parts, execEach, beforePart, afterPart */
		:: enter(0, BUSY);
			if
			:: gaveUp
			:: else ->
				mayEnd();
				if
				:: REFUSES -> err = REFUSED
				:: else ->
					inText = 1; progress = 1; part = 0;
					do
					:: part < 2 && err == OK ->
						part++;
						if
						:: progTx != 0 -> mayEnd(); sql(CONTROL, res); err = res;      /* COMMIT */
							if
							:: res == OK -> d_step { assert(sqlTx == progTx); fate[sqlTx] = COMMITTED; sqlTx = 0; progTx = 0 }; endTx()
							:: else
							fi
						:: progTx == 0 && txs < TXS -> mayEnd(); sql(CONTROL, res); err = res; /* BEGIN */
							if :: res == OK -> beginTx() :: else fi
						:: W[0] = W[0] & ~ENDING; statement(INSERT)
						fi;
						between()
					:: else -> break
					od
				fi;
				leave()
			fi
#endif
#ifdef RAW
		/* conn.Raw, enterRaw, handOut */
#ifdef OLD_V4
		:: !raw -> enter(0, BUSY); if :: gaveUp :: else -> raw = 1; leave() fi
#else
		:: !raw -> enter(0, BUSY | ENDING); if :: gaveUp :: else -> raw = 1; leave() fi
#endif
		/* what the program does there: nothing of it passes the gate */
		:: raw && sqlTx != 0 && !(W[0] & DEAD) -> atomic {
			if :: fate[sqlTx] = COMMITTED; progTx = 0 :: fate[sqlTx] = ABORTED fi;
			sqlTx = 0
		}
		/* conn.IsValid behind Raw, takeBack */
		:: raw && !ROWS ->
			enter(0, BUSY | RECORDING);
			if
			:: gaveUp
			:: else ->
				RECORDED;
#ifdef M_RAW_BEFORE_SYNC
				raw = 0;
				if :: f & DEAD :: else -> sync() fi;
#else
				if :: f & DEAD :: else -> sync() fi;
				raw = 0;
#endif
				RECORD; RECORDED;
				leave()
			fi
#endif
#ifdef SHARED
		/* stmt.Close by Gate.EnterNow: who finds the reaper inside goes away */
#ifdef OLD_V2
		:: atomic { (W[0] & (BUSY | REAPING)) == 0 -> W[0] = W[0] | BUSY };
			if
			:: atomic { (C & REAPING) == 0 -> C = C + OPERATION; entered(0) }; leave()
			:: atomic { (C & REAPING) != 0 -> W[0] = W[0] & ~BUSY };
				assert(!(W[0] & CONDEMNED))                /* (e) nobody is inside to carry it out */
			fi
#else
		:: if
			:: atomic { (C & REAPING) == 0 -> C = C + OPERATION };
				atomic { assert(!(W[0] & (BUSY | REAPING))); W[0] = W[0] | BUSY; entered(0) }; leave()
			:: (C & REAPING) != 0
			fi
#endif
#endif
		/* conn.IsValid: check-in */
#ifdef LEASES
		:: progTx == 0 && !ROWS && !txOpen -> enter(0, BUSY | RECORDING);
			if
			:: gaveUp
			:: else -> leased = 0; recLeased = 0; RECORDED; leave()
			fi
#else
		:: enter(0, BUSY | RECORDING); if :: gaveUp :: else -> RECORDED; leave() fi
#endif
		fi
#ifdef LEASES
	/* conn.ResetSession: check-out. Who gives up waiting begins no lease. */
	:: n < OPS && !leased && !refused && !unbegun -> n++; enter(0, BUSY | RECORDING);
		if
		:: gaveUp -> unbegun = 1
		:: else ->
			if
			:: f & DEAD -> refused = 1                     /* driver.ErrBadConn */
			:: else -> leased = 1; recLeased = 1
			fi;
			RECORDED; leave()
		fi
#ifdef UNTIL
	/* the operation behind it: it gives up as well, or begins the lease, checkOut, checkOutNow */
	:: unbegun && !leased -> enter(0, BUSY);
		if
		:: gaveUp -> unbegun = 0                           /* IsValid finds no lease */
		:: else ->
			if
			:: f & DEAD -> refused = 1
			:: else -> leased = 1; RECORD; recLeased = 1; RECORDED
			fi;
			unbegun = 0; leave()
		fi
#endif
	:: refused -> break
#endif
	:: n >= OPS -> break
	od;
	n = OPS; err = OK; inText = 0;
#ifndef CLOSE
	/* conn.Close */
#ifdef UNTIL
	do :: enter(0, BUSY); if :: gaveUp :: else -> break fi od;  /* it has no context */
#else
	enter(0, BUSY);
#endif
	shut();
	leave();
#endif
	goneHome()
}

#ifdef CLOSE
/* conn.Close, Gate.Close on another goroutine: who is in flight closes on its way out */
proctype Close() {
	int bits; int f; int lb;
	byte err, co, k, i; bool watching, gaveUp;
	do
	:: enter(0, BUSY);
		if
		:: gaveUp ->
#ifdef M_CLOSE_BLINDLY
			W[0] = W[0] | CLOSING; break
#else
			if
			:: atomic { W[0] & BUSY -> W[0] = W[0] | CLOSING }; break
			:: atomic { !(W[0] & BUSY) }
			fi
#endif
		:: else -> shut(); leave(); break
		fi
	od;
	goneHome()
}
#endif


/* ------------------------------------------------------------ the reaper */

/* Gate.Try, TryAt, tryWhere, Shared.try */
#ifdef SHARED
#define TAKE_CACHE atomic { C == 0 -> C = REAPING }
#define CACHE_TAKEN C != 0
#else
#define TAKE_CACHE skip
#define CACHE_TAKEN 0
#endif
#if defined(SHARED) && defined(M_NO_CACHE)
#undef TAKE_CACHE
#undef CACHE_TAKEN
#define TAKE_CACHE skip
#define CACHE_TAKEN 0
#endif

/* Gate.Release, Shared.release */
#if defined(SHARED) && !defined(M_NO_CACHE)
inline releaseCache() {
	atomic { aw = C & AWAITED; C = C & ~(REAPING | AWAITED) };
	if :: aw -> ended(turnC) :: else fi
}
#else
inline releaseCache() { skip }
#endif
inline release(c) {
	atomic { reaperIn[c] = 0; aw = W[c] & AWAITED; W[c] = W[c] & ~(REAPING | AWAITED) };
	if :: aw -> ended(turn[c]) :: else fi;
	releaseCache()
}

#define MATCHES(c, any, gen) ((W[c] & (BUSY | REAPING)) == 0 && ((any) || GENERATION(W[c]) == (gen)))

inline try(c, any, gen) {
	inside = 0;
	if
	:: TAKE_CACHE;
		if
		:: atomic { MATCHES(c, any, gen) -> W[c] = W[c] | REAPING; inside = 1; reaperIn[c] = 1;
			assert(!ownerIn[c]);                               /* (f) */
#ifdef SHARED
			assert(!ownerIn[0] && !ownerIn[1])
#endif
			}
		:: atomic { !MATCHES(c, any, gen) }; releaseCache()
		fi
	:: CACHE_TAKEN
	fi
}


/* conn.rollbackBy, by the reaper */
inline rollbackInside() {
	killRows();
	d_step {
		assert(!running);
		assert(sqlTx == txId || sqlTx == 0);                       /* (c) */
		if :: sqlTx != 0 -> fate[sqlTx] = UNDONE; sqlTx = 0 :: else fi;
		intr = 0; intrOp = 0; intrOrder = 0
	}
}
/* conn.inside, carry, reapLease, die */
inline carryInside(o, out) {
	assert(absolute[o] || atOp[o] == opno);                            /* (g) nothing has moved */
	if
	:: raw || W[0] & DEAD -> out = VOID
	:: else ->
		if
		:: scope[o] == S_TX && txOpen && txId == meant[o] ->
			rollbackInside(); bury(GUARDS); out = DONE
#ifdef LEASES
		:: scope[o] == S_LEASE ->
			assert(leased);                                /* (g) */
			if :: txOpen -> rollbackInside(); bury(GUARDS) :: else -> killRows() fi;
			if
			:: exhume(); d_step { W[0] = W[0] | DEAD; dying = 1 }    /* conn.die */
			:: skip                                        /* session.verify: what it carries keeps the handle */
			fi;
			out = DONE
#endif
		:: else -> out = VOID
		fi
	fi
}

/* conn.giveUp, crossing, closable, renew: between two crossings the file system is
 * asked, and whoever wants the connection gets it */
#ifdef LEASES
#define CLOSABLE (!leased && !txOpen && tomb == NOBODYS && !ROWS)
inline crossed(o) { assert(atOp[o] == opno) }                          /* (g) */
inline giveUp(o, out) {
	out = VOID;
#ifdef M_ONE_LOOK
	try(0, 1, 0);
	if
	:: inside -> out = DONE; ok = CLOSABLE; release(0)
	:: else -> ok = 0
	fi;
	if
	:: ok -> try(0, 1, 0);
		if
		:: inside -> if :: W[0] & DEAD || raw :: else -> d_step { assert(!leased); W[0] = W[0] | DEAD; dying = 1 } fi; release(0)
		:: else -> out = VOID
		fi
	:: else
	fi;
#else
	try(0, 0, atGen[o]);
	if
	:: inside ->
		crossed(o);
		if
		:: raw || W[0] & DEAD -> ok = 0
		:: else -> out = DONE; ok = CLOSABLE               /* refreshed, if nothing else comes of it */
		fi;
		release(0)
	:: else -> ok = 0
	fi;
	if
	:: ok ->
		try(0, 0, atGen[o]);
		if
		:: inside ->
			crossed(o);
			if
			:: raw || W[0] & DEAD -> out = VOID
			:: !raw && !(W[0] & DEAD) && CLOSABLE -> d_step { W[0] = W[0] | DEAD; dying = 1 }
			:: !raw && !(W[0] & DEAD)                      /* refreshed: reopening.works, conn.others, Leave */
			fi;
			release(0)
		:: else -> out = VOID
		fi
	:: else
	fi;
#endif
	settle(o, out)
}
#endif

/* control.Nudge, conn.stopCondemned, Gate.Hit */
inline stopCondemned(alive) {
	if
	:: atomic { (W[0] & (BUSY | CONDEMNED)) != (BUSY | CONDEMNED) -> alive = 0 }
#ifdef M_TWO_SENDERS
	:: atomic { (W[0] & (BUSY | CONDEMNED)) == (BUSY | CONDEMNED) -> alive = 1; W[0] = W[0] | INTERRUPT };
#else
	:: atomic { (W[0] & (BUSY | CONDEMNED)) == (BUSY | CONDEMNED) && W[0] & INTERRUPT -> alive = 1 }
	:: atomic { (W[0] & (BUSY | CONDEMNED)) == (BUSY | CONDEMNED) && !(W[0] & INTERRUPT) -> alive = 1; W[0] = W[0] | INTERRUPT };
#endif
		so = order;
		if
#ifdef M_NO_MEANT
		:: so == 0 || shielded || raw
#else
		:: so == 0 || confirmed != so || shielded || raw
#endif
		:: else ->
#ifdef M_NO_RECHECK
			id = meant[so];
#else
			tryTransaction(id);
#endif
			if
			:: id != meant[so]
			:: else ->
				tellStop(0, so);
#ifdef M_NO_ENDING
				interruptSQLite(0, so)
#else
				if :: W[0] & ENDING :: else -> interruptSQLite(0, so) fi
#endif
			fi
		fi;
		W[0] = W[0] & ~INTERRUPT
	fi
}

/* conn.condemn, Gate.Condemn */
inline place(o) {
#ifdef OLD_V7
	if :: W[0] & CONDEMNED -> ok = 0 :: else -> ok = 1; order = o fi
#else
	atomic { ok = (order == 0); if :: ok -> order = o :: else fi }
#endif
}
inline mark() {
	if
	:: atomic { W[0] & BUSY -> ok = 1; W[0] = W[0] | CONDEMNED }
	:: atomic { !(W[0] & BUSY) -> ok = 0 }
	fi
}
inline takeBack(o) {
#ifdef M_TAKE_BACK_BLINDLY
	order = 0; ok = 0
#else
	atomic { ok = (order != o); if :: !ok -> order = 0 :: else fi }
#endif
}
inline condemn(o) {
#ifdef M_MARK_FIRST
	mark();
	if :: ok -> place(o) :: else fi;
	if :: ok -> transaction(id); if :: id != meant[o] -> takeBack(o) :: else -> confirmed = o fi :: else fi
#else
	place(o);
	if
	:: !ok                                             /* another one is under way */
	:: else ->
		mark();
#ifdef OLD_V1
		if :: !ok -> takeBack(o) :: else -> confirmed = o fi
#else
		transaction(id);
		if :: !ok || id != meant[o] -> takeBack(o) :: else -> confirmed = o fi
#endif
	fi
#endif
}

/* control.Carry */
inline carryOrder(o) {
#ifdef M_REAPER_WAITS
	(W[0] & (BUSY | REAPING)) == 0;
#endif
#ifdef M_ANY_GENERATION
	try(0, 1, 0);
#else
	try(0, absolute[o], atGen[o]);
#endif
	if
	:: inside ->
		carryInside(o, out);
		release(0);
		settle(o, out)
	:: else ->
		ok = 0;
		if
		:: scope[o] != S_TX || !absolute[o] || raw
		:: else ->
			transaction(id);
			if :: id != meant[o] :: else -> condemn(o) fi
		fi;
		if
		:: ok -> stopCondemned(alive); struck = 1
		:: else -> settle(o, VOID)
		fi
	fi
}
/* tracker.reaper.carryOut, with Conn.again: a void order comes again, as another one */
inline carry(o) {
#ifdef LEASES
	if
	:: scope[o] == S_GIVEUP -> giveUp(o, out)
	:: else -> carryOrder(o)
	fi
#else
	carryOrder(o)
#endif
}

/* tracker.reaper.scan, Conn.examine, order, reaper.carry, and a carrier, work: a connection
 * that is being undone is not looked at, so it has one order at a time on the way here */
#ifdef AGAIN
#define UNTAKEN 1        /* a second order for a transaction that has one */
#else
#define UNTAKEN (recTx != taken)
#endif
proctype Reaper() {
	byte o, out, id, so, gen, op; bool ok, alive, inside; int aw; int w;
end:	do
	:: orders < ORDERS ->
		d_step { w = W[0]; op = opno };
		lock();
		d_step { assert(recTx == recTx2); o = 0 };
		atomic {
			if
			:: recTx != 0 && UNTAKEN -> o = orders + 1; scope[o] = S_TX; absolute[o] = 1; meant[o] = recTx
#ifdef RESTING
			:: recTx != 0 && UNTAKEN && !(w & BUSY) -> o = orders + 1; scope[o] = S_TX; meant[o] = recTx
#endif
#ifdef LEASES
			:: recLeased && !(w & BUSY) && (recTx == 0 || UNTAKEN) -> o = orders + 1; scope[o] = S_LEASE; meant[o] = recTx
			:: !(w & BUSY) && recTx == 0 -> o = orders + 1; scope[o] = S_GIVEUP
#endif
			:: else -> skip
			fi;
			if :: o != 0 -> orders = o; atGen[o] = GENERATION(w); atOp[o] = op; if :: meant[o] != 0 -> taken = meant[o] :: else fi :: else fi
		};
		unlock();
		if :: o != 0 -> carry(o) :: else fi;
		atomic { o = 0; out = 0; id = 0; so = 0; ok = 0; alive = 0; w = 0; op = 0; inside = 0; aw = 0 }
	:: ownerDone && struck == 0 -> break
	od;
	atomic {                                           /* (b) none is forgotten */
		o = 1;
		do :: o <= orders -> assert(settled[o] != 0); o++ :: else -> break od;
		assert(order == 0);
#ifndef LEASES
		assert(closed)                                     /* (f) Close is not forgotten */
#endif
	}
}

/* tracker.reaper.nudge, on the reaper's own goroutine beside its carriers. nudging: the
 * connection is on the list reaper.condemned. */
proctype Nudger() {
	byte id, so; bool alive, nudging;
end:	do
	:: struck ->
#ifdef M_NO_NUDGE
		struck = 0
#else
		atomic { struck = 0; nudging = 1 }
	:: nudging ->
		stopCondemned(alive);
		atomic { nudging = alive; id = 0; so = 0; alive = 0 }
#endif
	:: ownerDone && !struck && !nudging -> break
	od
}

/* connector.closeHandle on a goroutine of its own, behind conn.die */
#ifdef LEASES
proctype Closer() {
end:	if
	:: dying -> d_step { assert(!running && !closed); closed = 1 }   /* (f) nobody is inside */
	:: ownerDone && !dying
	fi
}
#endif

/* ---------------------------------------------------------- the watchdog */

/* watch.stop, Gate.Stop, conn.interrupt */
#ifdef M_NO_GENERATION
#define STILL(w) ((W[0] & (BUSY | WATCHED)) == (BUSY | WATCHED))
#else
#define STILL(w) ((W[0] & (BUSY | WATCHED)) == (BUSY | WATCHED) && GENERATION(W[0]) == w)
#endif
inline stopWatched(w, op, alive) {
	if
	:: atomic { !STILL(w) -> alive = 0 }
	:: atomic { STILL(w) && W[0] & INTERRUPT -> alive = 1 }
	:: atomic { STILL(w) && !(W[0] & INTERRUPT) -> alive = 1; W[0] = W[0] | INTERRUPT | STOPPED };
		tellStop(op, 0);
#ifdef M_NO_BESIDE
		interruptSQLite(op, 0);
#else
		if :: W[0] & BESIDE :: else -> interruptSQLite(op, 0) fi;
#endif
		W[0] = W[0] & ~INTERRUPT
	fi
}

/* watch.attend's goroutine */
proctype Attender(int w; byte op) {
	bool alive = 1;
end:	if
	:: dismissed[op] -> goto done
	:: over[op]
	fi;
	do
	:: stopWatched(w, op, alive); if :: !alive -> break :: else fi
	:: dismissed[op] -> break
	od;
done:	attenders--
}

/* watchdog.tick, watch.look, cancelled, attend, Gate.Attend */
proctype Watchdog() {
	int w; byte op; bool alive;
	do
	:: atomic { (W[0] & (BUSY | WATCHED)) == (BUSY | WATCHED) -> w = GENERATION(W[0]) };
		if
		:: atomic { !watchMu -> op = announced; over[op] = 1 }; stopWatched(w, op, alive)  /* the context has ended, or does now */
		:: atomic { !watchMu -> over[announced] = 1 }                                      /* and the watchdog comes late */
#ifdef ATTEND
		:: attenders < 2 ->
			atomic { !watchMu -> watchMu = 1 };
			if
			:: atomic { STILL(w) && !(W[0] & ATTENDED) -> W[0] = W[0] | ATTENDED };
				atomic { op = announced; attendsTo = op; attenders++; run Attender(w, op); watchMu = 0 }
			:: atomic { !STILL(w) || W[0] & ATTENDED -> watchMu = 0 }
			fi
#endif
		fi;
		atomic { w = 0; op = 0; alive = 0 }
	:: ownerDone -> break
	od
}

/* ---------------------------------------------------------------- others */

/* a report: Tracker.Records */
proctype Reader() {
	do
	:: lock(); assert(recTx == recTx2); unlock()
	:: ownerDone -> break
	od
}

#ifdef SHARED
/* the owner of the other connection, which runs a statement each time */
proctype Other() {
	int f; byte k, n; bool gaveUp;
	do
	:: n < OTHERS -> n++; enter(1, BUSY);
		if
		:: gaveUp
		:: else ->
			assert(!reaperIn[0] && !reaperIn[1]);
			atomic { W[1] = NEXT(W[1] & ~OFONE); ownerIn[1] = 0 }; LEAVE_CACHE
		fi
	:: n >= OTHERS -> break
	od
}
/* the monitor, which asks the other connection for its memory: control.Memory */
proctype Monitor() {
	bool inside; int aw; byte n;
	do
	:: n < VISITS -> n++; try(1, 1, 0);
		if :: inside -> assert(!ownerIn[0] && !ownerIn[1] && !running); release(1) :: else fi;
		atomic { inside = 0; aw = 0 }
	:: n >= VISITS -> break
	od
}
#endif

init {
	atomic {
		users = 1;
#ifdef CLOSE
		users = 2; run Close();
#endif
		run Owner();
#ifndef NO_REAPER
		run Reaper(); run Nudger();
#endif
#ifdef LEASES
		run Closer();
#endif
#ifdef WATCHDOG
		run Watchdog();
#endif
#ifdef READER
		run Reader();
#endif
#ifdef SHARED
		run Other(); run Monitor();
#endif
	}
}

#ifdef LIVE
/* (d, e) who runs in a transaction that an absolute order is for, and may be stopped,
 * is told to stop: nobody waits until the statement ends by itself */
#define TOLD (stuck && orders > 0 && scope[orders] == S_TX && absolute[orders] && meant[orders] == txId && !settled[orders] && \
	!(W[0] & ENDING) && txOpen && recTx == txId && !raw)
never {
wait:	do
	:: TOLD -> goto accept_told
	:: true
	od;
accept_told:
	do
	:: TOLD
	od
}
#endif
