"""Everything that knows Huawei Cloud: signing, the APIG client, the function's context."""
