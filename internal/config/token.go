package config

import (
	"context"

	"mailhaul/internal/auth"
)

// TokenCommand gets access tokens from a command, the first line of whose output is
// one. How long they are good it does not say: the command is asked again when a
// server refuses one. The command is run like that of Password.
func TokenCommand(command string) *auth.Tokens {
	return auth.NewTokens(func(ctx context.Context, _ auth.Secret) (auth.Token, error) {
		s, err := fromCommand(ctx, "token", command)
		return auth.Token{Secret: s}, err
	})
}
