// Package examples holds the site that the demo starts from.
package examples

import "embed"

// Site is the repository of the demo, below "site".
//
//go:embed site/.gitignore site/astro.config.mjs site/package.json site/package-lock.json site/tsconfig.json site/public site/src
var Site embed.FS
