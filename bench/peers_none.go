//go:build nopeers

package main

// peers is empty: the build tag keeps their modules from being fetched where
// only raw and the guard are compared.
var peers []candidate
