module github.com/sqlite-leakguard/sqlite-leakguard

go 1.26

require (
	github.com/google/pprof v0.0.0-20250403155104-27863c87afa6
	github.com/mattn/go-sqlite3 v1.14.53
	go.uber.org/goleak v1.3.0
)
