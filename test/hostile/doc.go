// Package hostile runs the built program against servers that lie, flood, stall and
// break off: every group of protocol attacks that docs/reliability.md lists is a
// case here with its expected end. Whatever the server does, a run ends by itself,
// stays small, writes nothing beside the archive, tells no secret, archives only
// what the server really had, and deletes only what is archived.
package hostile
