import type { NextConfig } from "next";

const config: NextConfig = {
  // Without it, a lock file in a folder above would be taken for the root.
  turbopack: { root: __dirname },
};

export default config;
