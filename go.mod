module github.com/sqlite-leakguard/sqlite-leakguard

go 1.26

require (
	github.com/google/pprof v0.0.0-20241029153458-d1b30febd7db
	github.com/mattn/go-sqlite3 v1.14.53
	go.uber.org/goleak v1.3.0
)
