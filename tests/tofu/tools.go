// Package tools pins the OpenTofu that the tests run. scripts/setup builds it: OpenTofu's own module cannot be installed
// by `go install`, because it replaces a dependency.
package tools
